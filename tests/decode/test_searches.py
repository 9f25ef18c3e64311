"""Beam search and the handling of scores against the transformers library, case by case."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest

from capjax import config as config_lib
from capjax.decode import scores as score_functions
from capjax.decode.options import Options
from capjax.decode.search import search
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.special_tokens import SpecialTokens
from capjax.weights import gpt2
from capjax.weights.plan import Source
from capjax.weights.table import to_params

CASE = peer_cases.load("searches", "weights")[0]
END = CASE["config"]["eos_token_id"]
LENGTH = 24
SEARCHES = int(os.environ.get("CAPJAX_SEARCHES", "8"))  # of 40; each compiles a loop


@functools.cache
def model_and_params(folder):
    tensors = peer_cases.tensors(CASE)
    tensors["transformer.ln_f.weight"] = tensors["transformer.ln_f.weight"] * 3
    plan = gpt2.plan(Source(folder, tensors, CASE["config"], {}))
    model = config_lib.instantiate(
        config_lib.as_config(dict(plan.model)),
        "Model",
        vocab_size=CASE["config"]["vocab_size"],
        max_length=LENGTH,
        special_tokens=SpecialTokens(pad=0, bos=None, eos=END, never_written=()),
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), *model.inputs())["params"]
    return model, to_params(plan.table, shapes, tensors, plan.unread)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    (folder / "vocab.json").touch()
    return model_and_params(folder)


@pytest.mark.parametrize("number", range(SEARCHES))
def test_beams_are_those_of_the_library(language_model, number):
    model, params = language_model
    asked = CASE["searches"][number]
    o, prompt = asked["options"], np.array(asked["prompt"])
    options = Options(
        num_beams=o["num_beams"],
        length_penalty=o["length_penalty"],
        early_stopping=o["early_stopping"],
        repetition_penalty=o["repetition_penalty"],
        no_repeat_ngram=o["no_repeat_ngram_size"],
        min_length=o["min_new_tokens"],
        # Our row begins behind its first token.
        max_length=o["max_new_tokens"] - 1,
    )
    context = np.zeros((len(prompt), 0, 1), np.float32)
    found = search(model, params, context, options=options, prompt=prompt)
    written = np.asarray(found.tokens)[:, :, prompt.shape[1] - 1 :]
    expected = np.array(asked["tokens"])
    scores = np.array(asked["scores"]).reshape(expected.shape[:2])
    for row in range(len(expected)):
        for beam in range(o["num_beams"]):
            # Equal scores may come in any order.
            tied = np.flatnonzero(np.isclose(scores[row], scores[row, beam], rtol=1e-4))
            got = until_end(written[row, beam])
            assert got in [until_end(expected[row, other]) for other in tied]
    np.testing.assert_allclose(found.score, scores, rtol=2e-4, atol=2e-5)


def until_end(tokens):
    end = np.flatnonzero(tokens == END)
    return tokens[: end[0] + 1].tolist() if len(end) else tokens.tolist()


@pytest.mark.parametrize("name", CASE["processors"]["results"])
def test_scores_are_handled_as_in_the_library(name):
    before, history = (np.array(CASE["processors"][k]) for k in ("scores", "history"))
    asked = CASE["processors"]["results"][name]
    function, arguments = getattr(score_functions, name), asked["arguments"]
    scores = jnp.asarray(before, jnp.float32)
    if name in ("repetition_penalty", "no_repeated_ngrams", "banned_words"):
        if name == "banned_words":
            arguments = [tuple(map(tuple, arguments[0]))]
        # The buffer is longer than what is written.
        padded = jnp.asarray(np.pad(history, ((0, 0), (0, 4))), jnp.int32)
        found = function(scores, padded, jnp.int32(history.shape[1]), *arguments)
    else:
        found = function(scores, *arguments)
    expected = np.array(asked["scores"], float)  # None becomes nan
    np.testing.assert_array_equal(np.isneginf(found), np.isnan(expected))
    kept = ~np.isnan(expected)
    np.testing.assert_allclose(np.asarray(found)[kept], expected[kept], rtol=1e-5)


def test_beams_are_the_same_on_many_devices(language_model):
    model, params = language_model
    prompt = np.random.default_rng(0).integers(11, 23, (8, 2))
    context = np.zeros((8, 0, 1), np.float32)
    options = Options(num_beams=3)
    one = search(model, params, context, options=options, prompt=prompt)
    with jax.set_mesh(make_mesh({"data": 8})):
        spread = put_batch({"context": context}, batch_sharding(jax.sharding.get_mesh()))
        many = search(model, params, spread["context"], options=options, prompt=prompt)
    np.testing.assert_array_equal(one.tokens, many.tokens)
    np.testing.assert_allclose(one.score, many.score, rtol=1e-5)
