"""From a captioner and a language model of its vocabulary to tables, with random parameters."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from capjax import config as configs
from capjax.errors import UserError
from capjax.models.init import init
from capjax.runs import Run, make_model
from experiments.guiding import few_shot, lines, sweep, tables, tags

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
POOL = ["this is a red circle", "a picture of a blue square", "photo green triangle 12"]


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def hardly_made(name, tokenizer):
    """A run of a config as it would be before its first step, in memory."""
    config = configs.load(f"configs/guiding/{name}.py:runlocal")
    model = make_model(config, tokenizer)
    params = init(model, jax.random.key(0))
    if name == "language_model":
        model = model.clone(max_length=128)  # room for a prompt before the caption
    return Run(config, tokenizer, model, params, 0, pathlib.Path(f"runs/{name}"))


@pytest.fixture(scope="module")
def runs():
    texts = [text for i in range(100) for text in tags.Source().captions(i)]
    rows = lines.make(lambda n: texts, max_length=24, vocab_size=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return [hardly_made(name, rows) for name in ("tags", "language_model")]


@pytest.fixture
def data(tmp_path):
    section = {"name": "experiments.guiding.tags", "style": "sentences", "split": "val", "size": 6}
    (tmp_path / "tags.json").write_text(json.dumps(section))
    return str(tmp_path / "tags.json")


def test_one_sweep_serves_several_tables(runs, data, tmp_path):
    captioner, model = runs
    settings = [
        sweep.Setting(1.0),
        sweep.Setting(None, 1.0, 1.0, few_shot.FewShot(POOL, 2), 2),
    ]
    found = sweep.sweep(captioner, data, settings, language_model=model, progress=False)
    assert [len(row["captions"]) for row in found["rows"]] == [6, 6]
    assert found["rows"][0]["captions"] != found["rows"][1]["captions"]
    assert found["rows"][1]["shots"] == 2
    assert found["judges"] == ["own"]
    assert all(np.isfinite(row["cosine"]) for row in found["rows"])
    assert found["human"]["cider"] > 1  # a picture's sentences are much alike
    sweep.save(tmp_path / "tags.sweep.json", found)
    for name in ("table_1", "table_3", "table_b4", "figure_8"):
        given = ["--sweep", str(tmp_path / "tags.sweep.json"), "--out", str(tmp_path)]
        assert tables.main([name, *given]) == 0
        assert "ours" in (tmp_path / f"{name}.md").read_text()


def test_a_prompt_that_has_no_room_or_no_model_is_refused(runs, data):
    captioner, model = runs
    told = sweep.Setting(None, 1.0, 1.0, few_shot.FewShot(POOL, 2), 2)
    with pytest.raises(UserError, match="needs a language model"):
        sweep.sweep(captioner, data, [told], progress=False)
    short = dataclasses.replace(model, model=model.model.clone(max_length=24))
    with pytest.raises(UserError, match="shorten the prompt"):
        sweep.sweep(captioner, data, [told], language_model=short, progress=False)
    other = lines.make(lambda n: POOL, max_length=24, vocab_size=40)
    strange = dataclasses.replace(model, tokenizer=other)
    with pytest.raises(UserError, match="the captioner's 64"):
        sweep.sweep(captioner, data, [told], language_model=strange, progress=False)


def test_the_command_line_asks_for_settings(tmp_path):
    (tmp_path / "pool.jsonl").write_text("")
    base = ["figure_6", "--out", str(tmp_path), "--guidance", "1,2", "--language-model", "runs/lm"]
    told = ["--alpha", "2,4", "--beta-shares", "0,0.5", "--prompt", "counting"]
    found = sweep.settings_of(tables.parse([*base, *told]))
    assert [setting.row() for setting in found] == [
        {"guidance_scale": 1.0},
        {"guidance_scale": 2.0},
        *({"alpha": a, "beta": b} for a, b in ((2.0, 0.0), (2.0, 1.0), (4.0, 0.0), (4.0, 2.0))),
    ]
    assert found[-1].prompts.lines(0)[0] == "a photo of one bicycle"
    for wrong, message in (
        (["--shots", "2"], "--shots needs --pool"),
        (["--alpha", "1", "--language-model", ""], "need --language-model"),
        (["--guidance", "1,two"], "give numbers with commas"),
        (["--guidance", "-1"], "guidance_scale"),
    ):
        with pytest.raises(UserError, match=message):
            sweep.settings_of(tables.parse([*base, *wrong]))
