"""Sharding rules: which axis is split, who follows whom, and that the numbers do not care."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from jax.sharding import PartitionSpec as P

from capjax.errors import UserError
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.parallel.sharding import named_leaves, parameter_shardings, state_shardings
from capjax.train_step import abstract_state, init_state, loss_and_grads

PARAMS = {
    "encoder": {"kernel": jnp.zeros((12, 40)), "bias": jnp.zeros(40)},
    "decoder": {"kernel": jnp.zeros((3, 5)), "heads": jnp.zeros((4, 2, 8))},
}


def specs(rules, sizes=None):
    mesh = make_mesh(sizes or {"data": 2, "fsdp": 4})
    shardings = named_leaves(parameter_shardings(rules, PARAMS, mesh))
    return {name: sharding.spec for name, sharding in shardings.items()}


def test_fsdp_splits_the_largest_divisible_axis():
    assert specs([(".*", "fsdp")]) == {
        "encoder/kernel": P(None, "fsdp"),
        "encoder/bias": P(),  # a vector
        "decoder/kernel": P(),  # nothing that 4 divides
        "decoder/heads": P(None, None, "fsdp"),
    }
    assert set(specs([(".*", "fsdp")], {"data": 8}).values()) == {P()}


def test_the_first_rule_that_is_found_decides():
    rules = [("^encoder/kernel$", "replicate"), ("kernel", ("data",)), ("heads", ("fsdp", None))]
    with pytest.raises(UserError, match="2 devices do not divide an axis of 3 of 'decoder/kernel'"):
        specs(rules)
    rules[1] = ("encoder", "fsdp")
    assert specs(rules) == {
        "encoder/kernel": P(),
        "encoder/bias": P(),
        "decoder/kernel": P(),
        "decoder/heads": P("fsdp", None),
    }
    assert specs([("encoder/kernel", (None, ("data", "fsdp")))])["encoder/kernel"] == P(
        None, ("data", "fsdp")
    )


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("kernel", "fdsp")], "unknown rule 'fdsp'"),
        ([("(", "fsdp")], r"'\(' is not a regex"),
        ([("kernel",)], "is not a pair"),
        ([("kernel", ("tensor",))], "the mesh has no axis 'tensor'; its axes are data, fsdp"),
        ([("kernel", ("fsdp", None, None))], "names 3 axes, but 'decoder/kernel' has shape"),
    ],
)
def test_a_rule_that_cannot_be_is_named(rules, message):
    with pytest.raises(UserError, match=message):
        specs(rules)


@pytest.mark.parametrize(
    ("tx", "moments"),
    [(optax.adamw(1e-3), 2), (optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)), 1)],
)
def test_moments_lie_where_their_parameter_lies(tx, moments):
    mesh = make_mesh({"data": 2, "fsdp": 4})
    state = jax.eval_shape(lambda: {"opt_state": tx.init(PARAMS), "ema": PARAMS, "step": 0})
    shardings = named_leaves(state_shardings([(".*", "fsdp")], state, PARAMS, mesh))
    split = [name for name, sharding in shardings.items() if sharding.spec == P(None, "fsdp")]
    assert len(split) == moments + 1  # and the moving average
    assert all(name.endswith("encoder/kernel") for name in split)
    assert shardings["step"].spec == P()


def test_factored_moments_are_split_by_their_own_shape():
    mesh = make_mesh({"data": 2, "fsdp": 4})
    params = {"kernel": jnp.zeros((256, 512))}
    tx = optax.scale_by_factored_rms()
    state = jax.eval_shape(lambda: tx.init(params))
    for rules in ([("kernel", "fsdp")], [("kernel", (None, "fsdp"))]):
        shardings = state_shardings(rules, state, params, mesh)
        jax.jit(lambda: tx.init(params), out_shardings=shardings)()


def test_fsdp_holds_an_eighth_on_each_device():
    mesh = make_mesh({"data": 1, "fsdp": 8})
    model = toy.Model(vocab_size=64, max_length=8, image_size=8, width=64)
    tx = optax.adam(1e-3)
    abstract = abstract_state(toy.Task(model=model), tx, 0.9, [(".*", "fsdp")], mesh)
    state = init_state(toy.Task(model=model), tx, 0.9, abstract, 0)
    total = sum(x.nbytes for x in jax.tree.leaves(state))
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    assert held < total / 8 * 1.2  # vectors are whole everywhere


def test_loss_and_gradients_on_eight_devices_equal_those_on_one():
    task = toy.Task(model=toy.Model(vocab_size=32, max_length=8, image_size=8), noise=0.3)
    rng = np.random.default_rng(0)
    rows = {
        "image": rng.integers(0, 255, (16, 8, 8, 3), np.uint8),
        "tokens": rng.integers(0, 32, (16, 8)).astype(np.int32),
    }

    def on(sizes):
        mesh = make_mesh(sizes)
        with jax.set_mesh(mesh):
            tx = optax.identity()
            abstract = abstract_state(task, tx, 0.0, [(".*", "fsdp")], mesh)
            params = init_state(task, tx, 0.0, abstract, 0)["params"]
            compute = jax.jit(lambda p, b: loss_and_grads(task, p, b, jax.random.key(1)))
            loss, metrics, grads = compute(params, put_batch(rows, batch_sharding(mesh)))
        return jax.device_get((params, loss, metrics, grads))

    one = on({"data": 1})
    for sizes in ({"data": 8}, {"data": 2, "fsdp": 4}):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), on(sizes), one
        )
