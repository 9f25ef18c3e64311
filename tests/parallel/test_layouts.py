"""One step of training gives the numbers of one device on every shape of the mesh, in float32."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from capjax.models.attention import causal_mask
from capjax.models.transformer import BlockConfig, Stack
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.parallel.sharding import bytes_per_device, named_leaves
from capjax.train_step import abstract_state, init_state, make_step

VOCABULARY, LENGTH, PATCHES, BATCH, WIDTH = 32, 7, 5, 16, 32


class Captioner(nn.Module):
    """The one transformer block with all that the rules name, and little else to compile."""

    @nn.compact
    def __call__(self, image, tokens):
        context = nn.Dense(WIDTH, name="patches")(image)
        x = nn.Embed(VOCABULARY, WIDTH, name="embedding")(tokens)
        block = BlockConfig(WIDTH, 8, 4 * WIDTH)
        x = Stack(1, block, cross=True, name="stack")(x, context, causal_mask(tokens.shape[1]))
        return nn.Dense(VOCABULARY, name="head")(x)


class Task:
    """Next tokens, of which a random half count."""

    def init(self, rng):
        image = jnp.zeros((1, PATCHES, 6))
        return Captioner().init(rng, image, jnp.zeros((1, LENGTH), jnp.int32))["params"]

    def loss(self, params, batch, rng):
        tokens = batch["tokens"]
        logits = Captioner().apply({"params": params}, batch["image"], tokens[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return (losses * jax.random.bernoulli(rng, 0.5, losses.shape)).mean(), {}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(BATCH, PATCHES, 6)).astype(np.float32),
        "tokens": rng.integers(0, VOCABULARY, (BATCH, LENGTH)).astype(np.int32),
    }


class Stepped:
    """One step of plain descent, whose change of the parameters is the gradient."""

    def __init__(self, batch, **sizes):
        task = Task()
        tx, schedule = optax.sgd(1.0), optax.constant_schedule(1.0)
        self.mesh = make_mesh(sizes)
        with jax.set_mesh(self.mesh):
            self.abstract = abstract_state(task, tx, 0.5, ("tensor",), self.mesh)
            state = init_state(task, tx, 0.5, self.abstract, 0)
            before = jax.device_get(state["params"])
            step = make_step(
                task, tx, schedule, seed=0, accumulate_steps=1, ema_decay=0.5,
                abstract=self.abstract, mesh=self.mesh,
            )  # fmt: skip
            rows = put_batch(batch, batch_sharding(self.mesh))
            # The partitioning is what is tested here: the machine code need not be good.
            self.compiled = step.lower(state, rows).compile(
                {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
            )
            state, metrics = self.compiled(state, rows)
        self.metrics = jax.device_get(metrics)
        self.gradients = jax.tree.map(
            lambda a, b: a - np.asarray(b), before, jax.device_get(state["params"])
        )


@pytest.fixture(scope="module")
def one(batch):
    return Stepped(batch, data=1)


@pytest.fixture(
    scope="module",
    params=[(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8)],
    ids=lambda shape: "x".join(map(str, shape)),
)
def many(request, batch):
    return Stepped(batch, **dict(zip(("data", "fsdp", "tensor"), request.param, strict=True)))


def test_the_numbers_are_those_of_one_device(one, many):
    assert many.metrics.keys() == one.metrics.keys()
    for name, value in one.metrics.items():
        np.testing.assert_allclose(many.metrics[name], value, rtol=1e-5, err_msg=name)
    # Taken from float32 parameters of about one, so that the last digits are rounding.
    largest = max(np.abs(x).max() for x in jax.tree.leaves(one.gradients))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * max(1, largest)),
        many.gradients,
        one.gradients,
    )


def test_no_device_sees_the_whole_batch(many):
    """What is gathered are parameters; no activation of all the examples at its full width."""
    parts = many.mesh.shape["data"] * many.mesh.shape["fsdp"]
    shapes = re.findall(r"= f32\[([\d,]+)\]\S* all-gather\(", many.compiled.as_text())
    sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in shapes if shape[0] != "1"]
    activation = BATCH * min(PATCHES, LENGTH - 1) * WIDTH
    kernels = {x.size for x in jax.tree.leaves(many.abstract["params"])}
    assert parts == 1 or not [n for n in sizes if n >= activation and n not in kernels]


def test_the_state_is_updated_in_place(many):
    memory = many.compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= 0.99 * bytes_per_device(many.abstract)


def test_all_of_the_state_lies_as_the_rules_say(many):
    params, ema = (named_leaves(many.abstract[name]) for name in ("params", "ema"))
    assert {n: x.sharding for n, x in params.items()} == {n: x.sharding for n, x in ema.items()}
    split = {n for n, x in params.items() if "tensor" in jax.tree.leaves(tuple(x.sharding.spec))}
    # Three attention inputs of two attentions with their biases, two outputs, the MLP, the ends.
    assert len(split) == (0 if many.mesh.shape["tensor"] == 1 else 12 + 2 + 3 + 2)
