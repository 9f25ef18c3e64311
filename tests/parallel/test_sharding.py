"""Sharding rules: which axis is split, and who follows whom."""

import jax
import jax.numpy as jnp
import optax
import pytest
import toy
from jax.sharding import PartitionSpec as P

from capjax.errors import UserError
from capjax.parallel.mesh import make_mesh
from capjax.parallel.sharding import named_leaves, parameter_shardings, state_shardings
from capjax.train_step import abstract_state, init_state

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
        ([("kernel", ("tenso",))], "the mesh has no axis 'tenso'; its axes are data, fsdp, tensor"),
        (["tensors"], "there is no set of rules 'tensors'; the sets are replicate, fsdp, tensor"),
        ([("kernel", ("fsdp", None, None))], "names 3 axes, but 'decoder/kernel' has shape"),
    ],
)
def test_a_rule_that_cannot_be_is_named(rules, message):
    with pytest.raises(UserError, match=message):
        specs(rules)


BLOCK = {
    "self_attention": {
        "query": {"kernel": jnp.zeros((32, 4, 8)), "bias": jnp.zeros((4, 8))},
        "out": {"kernel": jnp.zeros((4, 8, 32)), "bias": jnp.zeros(32)},
    },
    "mlp_in": {"kernel": jnp.zeros((32, 128)), "bias": jnp.zeros(128)},
    "mlp_out": {"kernel": jnp.zeros((128, 32)), "bias": jnp.zeros(32)},
    "embedding": {"embedding": jnp.zeros((100, 32))},
    "head": {"kernel": jnp.zeros((32, 102))},
}


def test_the_tensor_rules_are_columns_then_rows():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    shardings = named_leaves(parameter_shardings(("tensor",), BLOCK, mesh))
    assert {name: sharding.spec for name, sharding in shardings.items()} == {
        "self_attention/query/kernel": P("fsdp", "tensor"),
        "self_attention/query/bias": P("tensor", "fsdp"),
        "self_attention/out/kernel": P("tensor", None, "fsdp"),
        "self_attention/out/bias": P(),
        "mlp_in/kernel": P("fsdp", "tensor"),
        "mlp_in/bias": P("tensor"),
        "mlp_out/kernel": P("tensor", "fsdp"),
        "mlp_out/bias": P(),
        "embedding/embedding": P(("tensor", "fsdp")),
        "head/kernel": P(None, ("tensor",)),  # 102 rows are divided by 2, not by 4
    }
    alone = make_mesh({"data": 2, "fsdp": 4})
    shardings = [parameter_shardings((rules,), BLOCK, alone) for rules in ("tensor", "fsdp")]
    assert shardings[0] == shardings[1], "without a tensor axis both sets are one"


def test_a_tensor_axis_that_does_not_fit_is_named():
    mesh = make_mesh({"data": 1, "tensor": 8})
    with pytest.raises(UserError, match="tensor: 8, which does not divide the 4 heads of 'self_at"):
        parameter_shardings(("tensor",), BLOCK, mesh)
    mended = (("self_attention/(query|out)", "fsdp"), "tensor")
    assert parameter_shardings(mended, BLOCK, mesh)["mlp_in"]["kernel"].spec == P(None, "tensor")
    with pytest.raises(UserError, match="splits no parameter of the model over it"):
        parameter_shardings(("fsdp",), BLOCK, mesh)


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
