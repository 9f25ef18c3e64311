"""Every estimator's mean over 10^5 drawn captions is the exact gradient, all captions summed."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import policy_toy as toy
import pytest

from capjax.tasks.policy import Judged, Task

K, B, CHUNKS = 5, 50, 400  # 10^5 captions in all
BOUND = 5.0  # standard errors; some 150 numbers are compared at once
NAMES = ("none", "greedy", "leave_one_out", "picture_mean", "running_mean")
REWARDS = {"toy": {"name": "policy_toy"}}


def task(**options):
    sampling = {"samples": K, **options.pop("sampling", {})}
    return Task(
        model=toy.params()[0],
        tokenizer=toy.Tokenizer(),
        rewards=REWARDS,
        sampling=sampling,
        **options,
    )


def log_probs(params, colour, sampling):
    """(captions, log p of each) in float64, of the distribution that they are drawn from."""
    rows, found = toy.captions(), []
    table, bias = params["table"], colour @ params["colour"]
    for row in rows:
        total = 0.0
        for t, (before, token) in enumerate(itertools.pairwise(row)):
            if 2 in row[: t + 1]:
                break
            scores = (table[t, before] + bias)[[2, 4, 5]] / sampling.get("temperature", 1.0)
            if t < sampling.get("min_length", 0):
                scores[0] = -np.inf
            total += scores[[2, 4, 5].index(token)] - np.log(np.exp(scores).sum())
        found.append(total)
    return rows, np.array(found)


def objective(params, start, kl=0.0, entropy=0.0, sampling=None):
    """E[reward] - kl KL(policy || start) + entropy H, mean over the two kinds of pictures."""
    sampling, value = sampling or {}, 0.0
    for key, colour in (("even", [10, 90, 40]), ("odd", [240, 200, 180])):
        colour = np.array(colour) / 255.0
        rows, log_p = log_probs(params, colour, sampling)
        _, log_q = log_probs(start, colour, sampling)
        share = np.exp(log_p)
        assert abs(share.sum() - 1) < 1e-12
        rewards = np.array([toy.worth(toy.Tokenizer().decode(row[1:]), key) for row in rows])
        inside = share > 0
        share, log_p, log_q = share[inside], log_p[inside], log_q[inside]
        value += share @ rewards[inside] / 2
        value -= share @ (kl * (log_p - log_q) + entropy * log_p) / 2
    return value


def exact(params, start, **how):
    """The gradient of the objective by central differences in float64."""
    flat, back = jax.flatten_util.ravel_pytree(params)
    flat, step = np.asarray(flat, np.float64), 1e-5

    def at(x):
        table = x[np.asarray(place["table"])]
        return objective({"table": table, "colour": x[np.asarray(place["colour"])]}, start, **how)

    place = back(jnp.arange(len(flat), dtype=jnp.float32))
    place = jax.tree.map(lambda x: np.asarray(x).astype(int), place)
    found = np.zeros(len(flat))
    for i in range(len(flat)):
        shift = np.zeros(len(flat))
        shift[i] = step
        found[i] = (at(flat + shift) - at(flat - shift)) / (2 * step)
    return found


@pytest.fixture(scope="module")
def world():
    """(parameters, those of the starting model), float64 copies of float32 values."""
    _, params = toy.params()
    start = jax.tree.map(lambda x: 0.5 * x, params)
    return params, start


@functools.cache
def drawn(sampling=()):
    """Captions of all chunks [CHUNKS,B,K+1,L], the greedy one last."""
    _, params = toy.params()
    drawing = task(baseline="greedy", sampling=dict(sampling))
    arrays, _ = toy.batch(B)
    own = jnp.arange(B)

    @jax.jit
    def all_chunks(key):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(CHUNKS))
        return jax.lax.map(lambda key: drawing.sample(params, arrays, own, key), keys)

    return all_chunks(jax.random.key(7))


def estimated(world, running=0.0, sampling=(), **options):
    """Gradients of all chunks [CHUNKS,number of parameters], ascending the objective."""
    params, start = world
    learner = task(sampling=dict(sampling), **options)
    arrays, _ = toy.batch(B)
    carried = learner.carried(start)
    carried["running_mean"] = {"sum": jnp.float32(running), "count": jnp.float32(1)}
    known, own = learner.rewards.arrays, jnp.arange(B)
    rollouts = drawn(sampling)
    if options["baseline"] != "greedy":
        rollouts = jax.tree.map(lambda x: x[:, :, :K], rollouts)

    @jax.jit
    def all_chunks(rollouts):
        prepared = learner.prepare(known, arrays)

        def one(rollout):
            totals = learner.totals(arrays["tokens"], [rollout.tokens])
            judge = learner.judge(carried, known, prepared, arrays, own, rollout, {})

            def loss(params):
                return learner.learn(params, arrays, rollout, judge, totals, 1, jax.random.key(0))[
                    0
                ]

            return -jax.flatten_util.ravel_pytree(jax.grad(loss)(params))[0]

        return jax.lax.map(one, rollouts)

    return np.asarray(all_chunks(rollouts), np.float64)


def check(found, expected):
    """Mean within its own Monte-Carlo error, everywhere."""
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    away = np.abs(found.mean(0) - expected)
    assert np.all(away <= BOUND * error + 1e-6), (away / np.maximum(error, 1e-12)).max()
    assert np.abs(expected).max() > 20 * error.max()  # an error so large would hide anything


@pytest.fixture(scope="module")
def by_baseline(world):
    return {name: estimated(world, 1.5, baseline=name) for name in NAMES}


@pytest.fixture(scope="module")
def true(world):
    params, start = (jax.tree.map(lambda x: np.asarray(x, np.float64), x) for x in world)
    return functools.partial(exact, params, start)


@pytest.mark.parametrize("name", NAMES)
def test_each_baseline_gives_the_exact_gradient(name, by_baseline, true):
    """The mean of a picture's captions holds the caption itself: (K - 1) / K of the gradient."""
    share = (K - 1) / K if name == "picture_mean" else 1.0
    check(by_baseline[name], share * true())


def test_baselines_reduce_variance(by_baseline):
    variance = {name: x.var(0, ddof=1).sum() * B * K for name, x in by_baseline.items()}
    factors = {name: variance["none"] / value for name, value in variance.items()}
    print("variance of one caption's gradient, none / baseline:", factors)
    assert factors["running_mean"] > 1.2
    assert factors["greedy"] > 1.2
    assert factors["leave_one_out"] > 1.2
    # Of one estimator without bias and of one with, at the same captions: one is a multiple.
    np.testing.assert_allclose(
        by_baseline["picture_mean"] * K / (K - 1), by_baseline["leave_one_out"], atol=1e-5
    )


def test_ppo_begins_as_reinforce(world, by_baseline):
    found = estimated(world, baseline="leave_one_out", estimator="ppo")
    np.testing.assert_allclose(found, by_baseline["leave_one_out"], atol=1e-5)


def test_kl_and_entropy_enter_exactly(world, true):
    found = estimated(world, baseline="leave_one_out", kl_weight=0.6, entropy_weight=0.3)
    check(found, true(kl=0.6, entropy=0.3))


def test_drawing_from_a_changed_distribution(world, true):
    """What is forbidden and flattened counts in the log-probabilities too."""
    sampling = (("temperature", 0.6), ("min_length", 1))
    found = estimated(world, baseline="leave_one_out", sampling=sampling)
    check(found, true(sampling=dict(sampling)))


def test_a_shuffled_reward_teaches_nothing(world):
    """The captions of each picture with the rewards of others: no gradient is left."""
    params, _ = world
    learner = task(baseline="leave_one_out")
    rollouts = jax.tree.map(lambda x: x[:, :, :K], drawn())
    arrays, _ = toy.batch(B)
    rewards = jax.random.normal(jax.random.key(3), (CHUNKS, B, K))

    @jax.jit
    def all_chunks(rollouts, rewards):
        def one(x):
            rollout, reward = x
            totals = learner.totals(arrays["tokens"], [rollout.tokens])

            def judge(log_p, soft):
                return Judged(reward, log_p), {}

            def loss(params):
                return learner.learn(params, arrays, rollout, judge, totals, 1, jax.random.key(0))[
                    0
                ]

            return jax.flatten_util.ravel_pytree(jax.grad(loss)(params))[0]

        return jax.lax.map(one, (rollouts, rewards))

    found = np.asarray(all_chunks(rollouts, rewards), np.float64)
    error = found.std(0, ddof=1) / np.sqrt(CHUNKS)
    assert np.all(np.abs(found.mean(0)) <= BOUND * error + 1e-6)
