"""A run directory with a random captioner of scenes: its captions are bad, its files are real."""

import pathlib

import jax
import numpy as np
import pytest

from capjax import config as configs
from capjax import runs
from capjax.checkpoint import Checkpoints
from capjax.demo.answers import Answers
from capjax.special_tokens import EOS_ID

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCALES = (0.0, 1.0, 2.0)


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioner")
    config = configs.load(f"{ROOT}/configs/guiding/scenes.py:runlocal")
    with config.unlocked():
        config.model.size_overrides = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)
        config.model.caption_queries = 0
        config.tokenizer.max_length = 12
        config.tokenizer.vocab_size = 96
        config.tokenizer.num_records = 100
    source = configs.instantiate(config.data.train, "Source", where="config.data.train")
    tokenizer = runs.prepare(folder, config, source, started=False)
    model = runs.make_model(config, tokenizer)
    shapes = jax.eval_shape(runs.initializer(config, model), jax.random.key(0))
    rng = np.random.default_rng(7)

    def drawn(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + rng.normal(0, 0.2, leaf.shape)).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(drawn, shapes)
    # So that no word is every picture's favourite, and captions end.
    bias = params["caption_decoder"]["head"]["bias"]
    bias[:], bias[EOS_ID] = 0.0, 2.5
    with Checkpoints(folder / runs.CHECKPOINTS, writer=True) as checkpoints:
        params = jax.device_put(params, jax.devices()[0])
        checkpoints.save_params(0, params, {"tokenizer": runs.fingerprint(tokenizer)})
    return folder


@pytest.fixture(scope="session")
def answers(run_directory):
    return Answers(runs.open_run(run_directory), SCALES)
