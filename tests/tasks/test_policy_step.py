"""One step of a policy: the same on 1 and 8 devices, in parts, and with strings on the host."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import policy_toy as toy
import pytest

from capjax.errors import UserError
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.rollout_step import RolloutStep
from capjax.tasks.policy import Task
from capjax.train_step import abstract_state, init_state

SIZE = 16
JAX = {"toy": {"name": "policy_toy", "weight": 0.5}}
STRINGS = {
    "toy": {"name": "capjax.rewards.function", "function": "policy_toy:by_strings", "weight": 0.5}
}


def run(rewards=None, devices=1, accumulate_steps=1, steps=2, frozen=None, sgd=True, **options):
    """(the state after some steps, the metrics of each)."""
    model, params = toy.params()
    options = {"baseline": "greedy", "kl_weight": 0.1, "sampling": {"samples": 2}, **options}
    task = Task(model=model, tokenizer=toy.Tokenizer(), rewards=rewards or JAX, **options)
    mesh = make_mesh({"data": devices}, jax.devices()[:devices])
    rate = optax.constant_schedule(0.5)
    tx = optax.sgd(rate) if sgd else optax.adam(rate)
    with jax.set_mesh(mesh):
        abstract = abstract_state(task, tx, 0.0, ("tensor",), mesh)
        state = init_state(task, tx, 0.0, abstract, 0, params)
        step = RolloutStep(
            task, tx, rate, seed=3, accumulate_steps=accumulate_steps, ema_decay=0.0,
            abstract=abstract, mesh=mesh, frozen=frozen,
        )  # fmt: skip
        (arrays, rows), metrics = toy.batch(SIZE), []
        for _ in range(steps):
            state, seen = step(state, put_batch(arrays, batch_sharding(mesh)), rows)
            metrics.append(seen)
        return jax.device_get((state, metrics))


def assert_same(found, expected, rtol=2e-5):
    flat, _ = jax.tree_util.tree_flatten_with_path(expected)
    for (path, a), b in zip(flat, jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=rtol, atol=1e-6, err_msg=jax.tree_util.keystr(path))


@pytest.fixture(scope="module")
def one():
    return run()


def test_eight_devices_equal_one(one):
    assert_same(run(devices=8), one)


def test_two_microbatches_equal_one(one):
    assert_same(run(accumulate_steps=2), one)


@pytest.mark.parametrize(("devices", "accumulate_steps"), [(1, 1), (8, 2)])
def test_strings_on_the_host_equal_the_device(one, devices, accumulate_steps):
    """The reward as a Python function, scored in a thread between programs."""
    assert_same(run(STRINGS, devices, accumulate_steps), one)


def test_several_passes_are_the_same_in_parts():
    options = dict(estimator="ppo", passes=2, clip=0.1, caption_weight=0.3, normalise="batch")
    expected = run(**options)
    assert expected[1][-1]["ratio_clipped"] > 0
    assert_same(run(STRINGS, 1, 2, **options), expected)


def test_kl_is_zero_at_the_start_and_grows(one):
    first, second = one[1]
    assert abs(first["kl"]) < 1e-6 < second["kl"]
    assert {"length", "repetition", "vocabulary", "entropy", "empty"} <= set(first)


def test_learning_raises_the_reward():
    metrics = run(steps=20)[1]
    assert metrics[-1]["greedy_reward"] > metrics[0]["greedy_reward"] + 0.2


def test_the_starting_model_stays_and_frozen_parameters_too():
    _, params = toy.params()
    state, _ = run(frozen={"colour": True, "table": False})
    np.testing.assert_array_equal(state["task"]["reference"]["table"], params["table"])
    np.testing.assert_array_equal(state["params"]["colour"], params["colour"])
    assert np.abs(state["params"]["table"] - params["table"]).max() > 1e-3


def test_the_starting_model_lies_as_the_parameters_do():
    mesh, model = make_mesh({"data": 2, "fsdp": 4}), toy.Model(8, 5, 2)
    task = Task(model=model, tokenizer=toy.Tokenizer(), rewards=STRINGS)
    with jax.set_mesh(mesh):
        abstract = abstract_state(task, optax.adam(0.1), 0.0, ((".*", "fsdp"),), mesh)
    table, copy = abstract["params"]["table"], abstract["task"]["reference"]["table"]
    assert "fsdp" in table.sharding.spec
    assert copy.sharding == table.sharding


def test_scoring_goes_on_while_others_are_drawn():
    """Captions of the second microbatch are drawn, though those of the first are not scored yet."""
    seen, go = [], threading.Event()

    class Slow(Task):
        def tell(self, rows, tokens):
            if not seen:
                seen.append("first")
                go.wait(60)
            return super().tell(rows, tokens)

        def sample(self, *args):
            rollout = super().sample(*args)
            jax.debug.callback(lambda k: go.set() if k == 1 else None, args[2][0])
            return rollout

    model, params = toy.params()
    task = Slow(model=model, tokenizer=toy.Tokenizer(), rewards=STRINGS)
    mesh, tx = make_mesh({"data": 1}, jax.devices()[:1]), optax.sgd(0.1)
    with jax.set_mesh(mesh):
        abstract = abstract_state(task, tx, 0.0, ("tensor",), mesh)
        state = init_state(task, tx, 0.0, abstract, 0, params)
        step = RolloutStep(
            task, tx, optax.constant_schedule(0.1), seed=0, accumulate_steps=2, ema_decay=0.0,
            abstract=abstract, mesh=mesh,
        )  # fmt: skip
        arrays, rows = toy.batch(SIZE)
        step(state, put_batch(arrays, batch_sharding(mesh)), rows)
    assert seen
    assert go.is_set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "mean"}, "baseline='mean' must be one of none, greedy"),
        ({"baseline": "leave_one_out", "sampling": {"samples": 1}}, "samples to 2 or more"),
        ({"estimator": "trpo"}, "estimator='trpo' must be one of"),
        ({"passes": 2}, "passes=2 with estimator='reinforce'"),
        ({"clip": 1.5}, "clip=1.5 must be above 0"),
        ({"normalise": "sum"}, "normalise='sum' must be one of"),
        ({"end_token": "no"}, "end_token='no' must be one of"),
        ({"kl_weight": -1}, "kl_weight=-1 must be 0 or more"),
        ({"scoring_threads": 0}, "scoring_threads=0"),
        ({"sampling": {"temprature": 1}}, "config.task.sampling has no field 'temprature'"),
        ({"sampling": {"num_beams": 3, "sample": False}}, "num_beams: a policy's captions"),
        ({"sampling": {"temperature": 0}}, "temperature=0 must be above 0"),
        ({"rewards": {}}, "config.task.rewards is empty"),
        ({"rewards": {"x": {"name": "capjax.nothing"}}}, "config.task.rewards.x names the module"),
        ({"rewards": {"x": {"name": "policy_toy", "weight": float("nan")}}}, "weight=nan"),
        (
            {"rewards": {"x": {"name": "capjax.rewards.length", "mots": 3}}},
            "config.task.rewards.x has a field 'mots'.*did you mean 'most'",
        ),
        (
            {"rewards": {"x": {"name": "capjax.rewards.function", "function": "policy_toy:no"}}},
            "function='policy_toy:no' cannot be found",
        ),
        ({"rewards": {"x": {"name": "capjax.rewards.cider"}}}, "needs document frequencies"),
    ],
)
def test_mistakes_are_one_sentence(options, message):
    given = {"rewards": JAX, **options}
    with pytest.raises(UserError, match=message) as caught:
        Task(model=toy.params()[0], tokenizer=toy.Tokenizer(), **given)
    assert "\n" not in str(caught.value)


def test_a_model_that_writes_nothing_is_no_policy():
    with pytest.raises(UserError, match="writes no captions"):
        Task(model=toy.Encoder(), tokenizer=toy.Tokenizer(), rewards=JAX)


def test_a_reward_that_is_no_number_names_the_caption(monkeypatch):
    monkeypatch.setattr(toy, "by_strings", lambda c, r, k: [float("nan")] * len(c))
    with pytest.raises(UserError, match="gave nan for the caption"):
        run(STRINGS, steps=1)


def test_a_run_is_opened_without_its_rewards():
    """To caption with a policy's run, what rewarded it need not be there any more."""
    rewards = {"clip": {"name": "capjax.rewards.clip_similarity", "run": "gone"}}
    task = Task(model=toy.params()[0], rewards=rewards)
    assert jnp.ndim(jax.eval_shape(task.init, jax.random.key(0))["table"]) == 3
