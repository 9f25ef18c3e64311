"""Every config runs with `:runlocal`, and what it leaves can be opened again."""

import pathlib

import pytest

from capjax import config as configs
from capjax.config_checks import validate
from capjax.runs import open_run
from capjax.train import train

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "configs").rglob("*.py")
    if path.parent.name != "curate"  # pipelines, which are not trained
)
REAL = "flickr8k"


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", CONFIGS)
def test_runlocal(path, tmp_path, request):
    arg = "runlocal"
    if REAL in path:
        arg += f",data={request.getfixturevalue('shared') / 'data' / REAL}"
    config = configs.load(f"{path}:{arg}")
    result = train(config, tmp_path)
    assert result.step == config.steps
    assert any(name.startswith("evals/") for name in result.metrics)
    run = open_run(tmp_path)
    assert run.step == config.steps


@pytest.mark.parametrize("path", CONFIGS)
def test_full_size_config_loads(path):
    """The defaults of a config are those of its documented command."""
    config = configs.load(path)
    validate(config)
    assert config.steps >= 100


@pytest.mark.parametrize("path", ["configs/guiding/flickr8k.py", "configs/guiding/scenes.py"])
def test_both_variants_of_the_paper(path):
    assert configs.load(path).model.variant == "bottleneck"
    other = configs.load(f"{path}:variant=attention_pooling")
    assert (other.model.variant, other.model.caption_queries > 0) == ("attention_pooling", True)
