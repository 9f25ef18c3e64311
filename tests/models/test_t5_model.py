"""T5 besides parity: padding, causality, dropout, rematerialisation, the first scores."""

import functools

import jax
import numpy as np
import pytest

from capjax.models.t5 import Model
from capjax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(pad=0, bos=0, eos=1, never_written=(0,))
SOURCE = np.array([[0, 5, 9, 3, 1, 0, 0], [0, 7, 8, 8, 4, 2, 1]], np.int32)
TARGET = np.array([[0, 6, 1, 0, 0, 0, 0], [0, 11, 3, 5, 1, 0, 0]], np.int32)


def build(**fields):
    return Model(20, 7, "tiny", special_tokens=SPECIAL, **fields)


@functools.cache
def weights():
    return jax.jit(build().init)(jax.random.key(0), SOURCE, TARGET)["params"]


@functools.partial(jax.jit, static_argnums=(0, 4))
def run(model, params, source, target, train=False, seed=0):
    rngs = {"dropout": jax.random.key(seed)}
    return model.apply({"params": params}, source, target, train, rngs=rngs)


def test_what_is_behind_the_end_changes_nothing_and_words_do():
    logits = run(build(), weights(), SOURCE, TARGET)
    assert logits.shape == (2, 6, 20)
    assert 0.3 < logits.std() < 3.0  # scores of a new model neither flat nor certain
    other = SOURCE.copy()
    other[0, 5:] = 13
    np.testing.assert_allclose(run(build(), weights(), other, TARGET), logits, atol=1e-5)
    other[0, 2] = 13
    assert np.abs(run(build(), weights(), other, TARGET) - logits)[0].max() > 1e-2


def test_the_decoder_sees_no_later_word():
    logits = run(build(), weights(), SOURCE, TARGET)
    other = TARGET.copy()
    other[1, 3] = 12
    changed = np.abs(run(build(), weights(), SOURCE, other) - logits)[1].max(-1)
    np.testing.assert_allclose(changed[:3], 0, atol=1e-5)
    assert changed[3] > 1e-2


def test_dropout_acts_in_training_alone():
    model = build(dropout=0.3)
    logits = run(build(), weights(), SOURCE, TARGET)
    np.testing.assert_allclose(run(model, weights(), SOURCE, TARGET), logits, atol=1e-6)
    once, again = (run(model, weights(), SOURCE, TARGET, True, seed) for seed in (1, 2))
    assert np.abs(once - again).max() > 1e-2


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_rematerialised_gradients_are_the_same(remat):
    def gradients(model):
        def loss(params):
            return (run(model, params, SOURCE, TARGET) ** 2).mean()

        return jax.jit(jax.grad(loss))(weights())

    expected = gradients(build())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        gradients(build(remat=remat)),
        expected,
    )
