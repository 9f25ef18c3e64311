"""Training that starts from parts of other runs, with some of them frozen."""

from pathlib import Path

import jax
import numpy as np
import published
import pytest

from capjax import config as configs
from capjax import runs
from capjax.errors import UserError
from capjax.optimizers import frozen, make_optimizer
from capjax.train import train
from capjax.weights.importing import import_checkpoint

ROOT = Path(__file__).parent.parent
CONFIG = "configs/captioner/clip_gpt2.py"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two imported runs, of pictures of 32 pixels."""
    folder = tmp_path_factory.mktemp("parts")
    import_checkpoint(published.vit(folder / "published_vit"), folder / "vit")
    import_checkpoint(published.gpt2(folder / "published_gpt2"), folder / "gpt2")
    return folder


def load(parts, more=""):
    """The published config in small, on generated scenes, from both runs."""
    return configs.load(f"{CONFIG}:runlocal,clip={parts / 'vit'},gpt2={parts / 'gpt2'}{more}")


def assert_equal_trees(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("more", ["", ",lora=2", ",connector=cross", ",tune=all"])
def test_a_captioner_starts_from_published_parts(parts, tmp_path, monkeypatch, more):
    monkeypatch.chdir(ROOT)
    config = load(parts, more)
    train(config, tmp_path)
    run = runs.open_run(tmp_path)
    vit, gpt2 = runs.open_run(parts / "vit"), runs.open_run(parts / "gpt2")
    assert run.tokenizer.fingerprint == gpt2.tokenizer.fingerprint
    assert_equal_trees(run.params["image_tower"], vit.params["image_tower"])
    text = run.params["language_model"]
    before = gpt2.params["language_model"]
    if more == ",tune=all":
        assert np.abs(text["positions"] - before["positions"]).max() > 0
        return
    assert_equal_trees(_known(text, before), before)
    if more == ",lora=2":
        up = text["stack"]["blocks_0"]["self_attention"]["query_lora"]["up"]["kernel"]
        assert np.abs(up).max() > 0
    elif more == ",connector=cross":
        out = text["stack"]["blocks_0"]["cross_attention"]["out"]["kernel"]
        assert np.abs(out).max() > 0
    if "cross" not in more:
        # It has learnt: four steps away from where it began.
        assert np.abs(run.params["connection"]["bias"]).max() > 0


def _known(tree, like):
    """The part of a tree that another one has, too."""
    return {k: _known(tree[k], v) if isinstance(v, dict) else tree[k] for k, v in like.items()}


def test_frozen_parameters_cost_no_state(parts, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load(parts)
    params = {"image_tower": {"kernel": np.ones((3, 3))}, "connection": {"kernel": np.ones((3, 3))}}
    state = make_optimizer(config.optimizer, lambda step: 0.1).init(params)
    moments = [x for x in jax.tree.leaves(state) if np.shape(x) == (3, 3)]
    assert len(moments) == 2  # of the connection alone
    assert frozen(config.optimizer, params) == {
        "image_tower": {"kernel": True},
        "connection": {"kernel": False},
    }


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("no_such_part",), "no parameter matches 'no_such_part'"),
        (("kernel",), "leaves nothing to train"),
        (("(",), "missing \\)"),
    ],
)
def test_what_cannot_be_frozen_is_said(patterns, message):
    config = configs.base().optimizer
    config.frozen = patterns
    with pytest.raises(UserError, match=message):
        frozen(config, {"a": {"kernel": np.ones(3)}, "b": {"kernel": np.ones(3)}})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("image_tower", "{vit}:text_tower", "has no part 'text_tower'; it has image_tower"),
        ("language_model", "{vit}:image_tower", "the model has no parameter 'language_model/"),
        ("image_tower", "{vit}/nowhere", "there is no checkpoint under"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, tmp_path, monkeypatch, name, value, message):
    monkeypatch.chdir(ROOT)
    config = load(parts)
    with config.unlocked():
        config.init_parts[name] = value.format(vit=parts / "vit")
    with pytest.raises(UserError, match=message):
        train(config, tmp_path)


def test_pictures_of_another_size_resample_the_positions(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load(parts)
    with config.unlocked():
        config.data.image_size = 48
        config.evals = {}
    train(config, tmp_path)
    tower = runs.open_run(tmp_path).params["image_tower"]
    published_tower = runs.open_run(parts / "vit").params["image_tower"]
    assert tower["positions"].shape == (1, 37, 48)
    np.testing.assert_array_equal(tower["positions"][:, 0], published_tower["positions"][:, 0])
