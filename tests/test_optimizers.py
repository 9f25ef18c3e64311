"""Schedules by their values, optimisers by their first step, and who is spared weight decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from capjax import config as config_lib
from capjax.errors import UserError
from capjax.optimizers import OPTIMIZERS, decayed, make_optimizer, make_schedule

PARAMS = {
    "dense": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)},
    "attention": {"bias": jnp.ones((2, 3))},
    "norm": {"scale": jnp.ones(4)},
}


def section(**changes):
    config = config_lib.base().optimizer
    for name, value in changes.items():
        holder = config.schedule if name in config.schedule and name != "name" else config
        holder[name] = value
    return config


def schedule(name, steps=100, **changes):
    config = section(learning_rate=2.0, **changes)
    config.schedule.name = name
    return make_schedule(config, steps)


def test_schedules_take_their_values():
    constant = schedule("constant", warmup_steps=10)
    assert [float(constant(s)) for s in (0, 5, 10, 99)] == [0.0, 1.0, 2.0, 2.0]
    linear = schedule("linear", warmup_steps=20, end_fraction=0.5)
    assert [float(linear(s)) for s in (10, 20, 60, 100)] == [1.0, 2.0, 1.5, 1.0]
    cosine = schedule("cosine")
    assert [float(cosine(s)) for s in (0, 50, 100)] == pytest.approx([2.0, 1.0, 0.0])


def test_mistakes_are_named():
    with pytest.raises(UserError, match="warmup_steps=101 must lie between 0 and"):
        schedule("cosine", warmup_steps=101)
    with pytest.raises(UserError, match=r"unknown .*schedule.name 'sine'; choose one of constant"):
        schedule("sine")
    with pytest.raises(UserError, match=r"unknown config.optimizer.name 'lamb'; choose one of"):
        make_optimizer(section(name="lamb"), optax.constant_schedule(1.0))
    with pytest.raises(UserError, match="adam has no weight decay"):
        make_optimizer(section(name="adam"), optax.constant_schedule(1.0))


def test_vectors_biases_and_scales_are_spared_weight_decay():
    assert decayed(PARAMS) == {
        "dense": {"kernel": True, "bias": False},
        "attention": {"bias": False},
        "norm": {"scale": False},
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_goes_downhill(name):
    decay = 0.0 if name == "adam" else 0.5
    tx = make_optimizer(
        section(name=name, weight_decay=decay, clip_norm=0.0), optax.constant_schedule(0.1)
    )
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    size = {"adamw": 0.1, "adam": 0.1, "adafactor": 0.01, "sgd": 0.1}[name]
    np.testing.assert_allclose(updates["dense"]["bias"], -size, rtol=1e-3)
    np.testing.assert_allclose(updates["dense"]["kernel"], -size - 0.1 * decay, rtol=1e-3)


def test_gradients_are_clipped_by_their_global_norm():
    tx = make_optimizer(
        section(name="sgd", weight_decay=0.0, clip_norm=1.0), optax.constant_schedule(1.0)
    )
    grads = jax.tree.map(lambda x: 100 * x, PARAMS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert float(optax.global_norm(updates)) == pytest.approx(1.0)
