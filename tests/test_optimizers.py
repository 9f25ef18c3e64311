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
    with pytest.raises(UserError, match=r"unknown config.optimizer.name 'lion'; choose one of"):
        make_optimizer(section(name="lion"), optax.constant_schedule(1.0))
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
    size = {"adamw": 0.1, "adam": 0.1, "adafactor": 0.01, "lamb": 0.1, "sgd": 0.1}[name]
    np.testing.assert_allclose(updates["dense"]["bias"], -size, rtol=1e-3)
    # Of lamb, a matrix of ones moves by the learning rate times its own norm, decay included.
    whole = size if name == "lamb" else size + 0.1 * decay
    np.testing.assert_allclose(updates["dense"]["kernel"], -whole, rtol=1e-3)


def test_lamb_by_hand():
    kernel, grad = jnp.array([[3.0, 4.0]]), jnp.array([[1e-3, 1e-6]])
    params, grads = {"kernel": kernel, "scale": jnp.zeros(())}, {"kernel": grad, "scale": 2.0}
    config = section(name="lamb", weight_decay=0.5, clip_norm=0.0, epsilon=1e-6)
    tx = make_optimizer(config, optax.constant_schedule(0.1))
    updates, _ = tx.update(grads, tx.init(params), params)
    step = np.array([1e-3 / (1e-3 + 1e-6) + 1.5, 1e-6 / (1e-6 + 1e-6) + 2.0])  # decay of 0.5 p
    expected = -0.1 * 5.0 * step / np.linalg.norm(step)
    np.testing.assert_allclose(updates["kernel"][0], expected, rtol=1e-5)
    np.testing.assert_allclose(updates["scale"], -0.1, rtol=1e-5)  # though it is zero itself


def test_aligns_schedule():
    config = section(learning_rate=1e-3, warmup_steps=10_000)
    config.schedule.name = "linear"
    rate = make_schedule(config, 1_200_000)
    found = [float(rate(step)) for step in (5_000, 10_000, 605_000, 1_200_000)]
    assert found == pytest.approx([5e-4, 1e-3, 5e-4, 0.0], rel=1e-5, abs=1e-12)


def test_gradients_are_clipped_by_their_global_norm():
    tx = make_optimizer(
        section(name="sgd", weight_decay=0.0, clip_norm=1.0), optax.constant_schedule(1.0)
    )
    grads = jax.tree.map(lambda x: 100 * x, PARAMS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert float(optax.global_norm(updates)) == pytest.approx(1.0)
