"""BERT: parity with the public implementation, published size, padding, dropout, misuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest
from two_towers import count

from capjax.errors import UserError
from capjax.models.bert import SIZES, Bert, block_config
from capjax.weights import align as names
from capjax.weights.table import to_params

TOKENS = np.array([[1, 5, 9, 2, 0, 0], [1, 7, 8, 8, 4, 2]], np.int32)


def build(vocabulary=20, length=6, layers=2, width=32, heads=2, dropout=0.0):
    config = block_config(width, heads, dropout, jnp.dtype("float32"))
    return Bert(vocabulary, length, layers, config)


@functools.partial(jax.jit, static_argnums=(0, 4))
def run(model, params, tokens, words, train=False, segments=None, rng=None):
    rngs = {} if rng is None else {"dropout": rng}
    return model.apply({"params": params}, tokens, words, train, segments, rngs=rngs)


@functools.cache
def init(model):
    return jax.jit(model.init)(jax.random.key(0), TOKENS, TOKENS != 0)["params"]


@pytest.mark.parametrize("case", peer_cases.load("bert"), ids=["width 64", "width 48"])
def test_it_gives_what_transformers_gives(case):
    sizes = case["model"]
    model = build(*(sizes[k] for k in ("vocab_size", "max_length", "layers", "width", "heads")))
    tokens, segments = np.array(case["tokens"]), np.array(sizes["segments"])
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens != 0)["params"]
    params = to_params(names.bert("", ""), shapes, peer_cases.tensors(case), names.UNREAD)
    states = run(model, params, tokens, tokens != 0, False, segments)
    np.testing.assert_allclose(states[:, 0], case["outputs"]["cls"], atol=5e-5)
    np.testing.assert_allclose(states[:, 1], case["outputs"]["second"], atol=5e-5)


def test_the_published_size():
    """BERT-base without its pooler: 109,482,240 less 768 * 768 + 768."""
    size = SIZES["base"]
    model = build(30_522, 512, size.layers, size.width, size.width // 64)
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS, TOKENS != 0)
    assert count(shapes) == 109_482_240 - 768 * 769


def test_padding_changes_nothing_and_every_word_sees_every_other():
    model = build()
    params = init(model)
    states = run(model, params, TOKENS, TOKENS != 0)
    other = TOKENS.copy()
    other[0, 4:] = 11
    np.testing.assert_allclose(
        run(model, params, other, TOKENS != 0)[0, :4], states[0, :4], atol=1e-5
    )
    cut = run(model, params, TOKENS[:1, :4], TOKENS[:1, :4] != 0)
    np.testing.assert_allclose(cut[0], states[0, :4], atol=1e-5)
    other = TOKENS.copy()
    other[1, 4] = 11
    later = np.abs(run(model, params, other, TOKENS != 0) - states)[1, 0]
    assert later.max() > 1e-3


def test_dropout_acts_in_training_alone():
    model = build(dropout=0.5)
    params, words = init(build()), TOKENS != 0
    once, again = (
        run(model, params, TOKENS, words, True, rng=jax.random.key(seed)) for seed in (1, 2)
    )
    assert np.abs(once - again).max() > 1e-2
    np.testing.assert_allclose(
        run(model, params, TOKENS, words), run(build(), params, TOKENS, words), atol=1e-6
    )


def test_a_text_that_is_too_long_is_named():
    longer = np.zeros((1, 7), np.int32)
    with pytest.raises(UserError, match="texts of 7 tokens exceed the model's max_length=6"):
        jax.eval_shape(build().init, jax.random.key(0), longer, longer == 0)
