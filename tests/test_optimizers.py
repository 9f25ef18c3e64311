"""Schedules by their values, optimisers by their first steps, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from capjax import config as config_lib
from capjax.errors import UserError
from capjax.optimizers import OPTIMIZERS, make_optimizer, make_schedule

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


def test_the_inverse_square_root_of_steps():
    # Behind 10 steps of warm-up, sqrt(20 / (20 + s)): 1 at 0, 1/2 at 60.
    rate = schedule("rsqrt", warmup_steps=10, timescale=20)
    assert [float(rate(s)) for s in (5, 10, 70)] == pytest.approx([1.0, 2.0, 1.0])


def test_a_cooldown_brings_a_rate_down_from_what_it_is_then():
    stable = schedule("constant", warmup_steps=10, cooldown_steps=40, end_fraction=0.25)
    assert [float(stable(s)) for s in (10, 60, 80, 100)] == pytest.approx([2.0, 2.0, 1.25, 0.5])
    # At step 70 the rate is 1; half of the cooldown later it is half of that.
    rate = schedule("rsqrt", warmup_steps=10, timescale=20, cooldown_steps=30)
    assert [float(rate(s)) for s in (70, 85, 100)] == pytest.approx([1.0, 0.5, 0.0])


def test_steps_multiply_the_rate():
    rate = schedule("step", warmup_steps=10, boundaries=(30, 60), factor=0.5)
    assert [float(rate(s)) for s in (10, 29, 31, 59, 61)] == [2.0, 2.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("cosine", dict(cooldown_steps=5), "cosine comes down by itself"),
        ("constant", dict(cooldown_steps=95, warmup_steps=10), "the 90 steps that follow"),
        ("rsqrt", dict(timescale=0), "timescale must be more than 0"),
        ("step", {}, "name the steps at which"),
        ("step", dict(boundaries=(60, 30)), "in ascending order"),
    ],
)
def test_a_schedule_that_cannot_be_is_named(name, changes, message):
    with pytest.raises(UserError, match=message):
        schedule(name, **changes)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="warmup_steps=101 must lie between 0 and"):
        schedule("cosine", warmup_steps=101)
    with pytest.raises(UserError, match=r"unknown .*schedule.name 'sine'; choose one of constant"):
        schedule("sine")
    with pytest.raises(UserError, match=r"unknown config.optimizer.name 'lionn'; choose one of"):
        make_optimizer(section(name="lionn"), optax.constant_schedule(1.0))
    with pytest.raises(UserError, match="adam has no weight decay"):
        make_optimizer(section(name="adam"), optax.constant_schedule(1.0))
    factors = section(weight_decay=0.0, weight_decays=(("bias", 1.0),))
    with pytest.raises(UserError, match="are factors of weight_decay, which is 0"):
        make_optimizer(factors, optax.constant_schedule(1.0))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_goes_downhill(name):
    decay = 0.0 if name == "adam" else 0.5
    tx = make_optimizer(
        section(name=name, weight_decay=decay, clip_norm=0.0), optax.constant_schedule(0.1)
    )
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    # Adafactor keeps a tenth of a first gradient, and SM3 of a gradient divided by its own size.
    size = 0.01 if name in ("adafactor", "sm3") else 0.1
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


def test_lion_by_hand():
    config = section(name="lion", weight_decay=0.5, clip_norm=0.0, b1=0.9, b2=0.99)
    tx = make_optimizer(config, optax.constant_schedule(0.1))
    params = {"kernel": jnp.array([[2.0, 2.0]])}
    state = tx.init(params)
    for grad, sign in (([1.0, -1.0], [1, -1]), ([-0.08, 1.0], [1, 1])):
        # Momentum behind the first step: (1 - b2) g = +-0.01. At the second, b1 of it and
        # (1 - b1) of the gradient: 0.009 - 0.008 > 0, -0.009 + 0.1 > 0.
        updates, state = tx.update({"kernel": jnp.array([grad])}, state, params)
        expected = -0.1 * (np.array([sign]) + 0.5 * 2.0)
        np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-6)


def test_sm3_by_hand():
    config = section(name="sm3", weight_decay=0.0, clip_norm=0.0, b1=0.0)
    tx = make_optimizer(config, optax.constant_schedule(1.0))
    params = {"kernel": jnp.zeros((2, 2))}
    state = tx.init(params)
    updates, state = tx.update({"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, state, params)
    np.testing.assert_allclose(updates["kernel"], -np.ones((2, 2)), rtol=1e-6)
    # Rows remember the largest square, 4 and 16, columns 9 and 16; an entry the smaller of its two.
    updates, _ = tx.update({"kernel": jnp.ones((2, 2))}, state, params)
    expected = -1 / np.sqrt(1 + np.array([[4.0, 4.0], [9.0, 16.0]]))
    np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-6)


def test_muon_makes_kernels_of_blocks_orthogonal_with_all_heads_together():
    rng = np.random.default_rng(0)
    shapes = {
        "blocks_0/attention/query/kernel": (8, 2, 4),
        "blocks_0/attention/out/kernel": (2, 4, 8),
        "blocks_0/mlp_in/kernel": (8, 32),
        "blocks_0/attention/query/bias": (2, 4),
        "head/kernel": (8, 5),
    }
    grads = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
    for layer, matrix in (("query", (8, 8)), ("out", (8, 8)), ("mlp_in", (8, 32))):
        # Singular values from 1 to 2: so few iterations do not bring up what is nearly zero.
        name = name_of(grads, layer)
        u, _, v = np.linalg.svd(np.asarray(grads[name]).reshape(matrix), full_matrices=False)
        grads[name] = jnp.asarray(((u * np.linspace(1, 2, 8)) @ v).reshape(shapes[name]))
    params = jax.tree.map(jnp.zeros_like, grads)
    config = section(name="muon", weight_decay=0.0, clip_norm=0.0)
    tx = make_optimizer(config, optax.constant_schedule(1.0))
    updates, _ = tx.update(grads, tx.init(params), params)
    for name, matrix in (("query", (8, 8)), ("out", (8, 8)), ("mlp_in", (8, 32))):
        update = updates[name_of(grads, name)].reshape(matrix)
        # Singular values of about one (the five iterations leave 0.7 to 1.2), times what gives
        # entries of a root mean square of 0.2.
        values = np.linalg.svd(update, compute_uv=False) / (0.2 * np.sqrt(max(matrix)))
        assert 0.6 < values.min() < values.max() < 1.25, name
        u, _, v = np.linalg.svd(np.asarray(grads[name_of(grads, name)]).reshape(matrix), False)
        assert -np.sum(update * (u @ v)) > 0.95 * np.linalg.norm(update) * np.sqrt(8)
    for name in ("blocks_0/attention/query/bias", "head/kernel"):
        np.testing.assert_allclose(updates[name], -np.sign(grads[name]), rtol=1e-4)


def name_of(tree, layer):
    return next(name for name in tree if f"{layer}/kernel" in name)


def test_groups_learn_and_decay_by_their_own_factors():
    config = section(
        name="sgd",
        b1=0.0,
        clip_norm=0.0,
        weight_decay=0.5,
        learning_rates=(("^dense/kernel", 0.1), ("^dense", 2.0)),
        weight_decays=(("attention", 3.0), ("kernel", 0.0)),
    )
    tx = make_optimizer(config, optax.constant_schedule(1.0))
    grads = jax.tree.map(lambda x: 7 * x, PARAMS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    # -(factor of the rate) * (gradient + 0.5 * factor of the decay), with parameters of one.
    expected = {
        "dense": {"kernel": -0.1 * 7, "bias": -2.0 * 7},
        "attention": {"bias": -(7 + 1.5)},
        "norm": {"scale": -7},
    }
    jax.tree.map(lambda u, e: np.testing.assert_allclose(u, e, rtol=1e-6), updates, expected)


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
