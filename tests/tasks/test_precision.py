"""dtype="bfloat16" computes in bfloat16 what may be, and nothing else: all families, traced."""

import collections

import jax
import jax.numpy as jnp
import pytest

from capjax.models import blip, blip_matching, clip, coca, dual_encoder, language_model, siglip
from capjax.tasks import caption, contrastive, language, matching
from capjax.tasks import coca as captioning_and_contrast

SHALLOW = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)
TOWERS = dict(image_layers=1, text_layers=1)
HALF = dict(dtype="bfloat16")
CASES = {
    "coca": lambda: captioning_and_contrast.Task(
        model=coca.Model(20, 7, 16, size_overrides=SHALLOW, **HALF), conditioning_dropout=0.5
    ),
    "dual encoder": lambda: contrastive.Task(
        model=dual_encoder.Model(20, 7, 16, size_overrides=SHALLOW, **HALF)
    ),
    "clip": lambda: contrastive.Task(
        model=clip.Model(20, 7, 32, "ViT-B/32", TOWERS, **HALF), loss="softmax"
    ),
    "siglip": lambda: contrastive.Task(
        model=siglip.Model(20, 7, 16, overrides=dict(layers=1), **HALF), loss="sigmoid"
    ),
    "language model": lambda: language.Task(model=language_model.Model(20, 7, "tiny", **HALF)),
    "blip": lambda: caption.Task(
        model=blip.Model(20, 7, 32, overrides=TOWERS, **HALF), conditioning_dropout=0.5
    ),
    "blip matching": lambda: matching.Task(
        model=blip_matching.Model(20, 7, 32, overrides=TOWERS, **HALF)
    ),
}


def equations(jaxpr):
    """All of them, those inside of others too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def operands(traced):
    """Operation -> how often its first operand has which type."""
    kinds = collections.defaultdict(collections.Counter)
    for equation in equations(traced.jaxpr):
        if equation.invars:  # iota has none
            kinds[equation.primitive.name][str(equation.invars[0].aval.dtype)] += 1
    return kinds


@pytest.mark.parametrize("name", CASES)
def test_matmuls_are_half_and_sums_whole(name):
    task = CASES[name]()
    params = jax.eval_shape(task.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    side = getattr(task.model, "image_size", 8)
    batch = {
        "image": jax.ShapeDtypeStruct((2, side, side, 3), jnp.uint8),
        "tokens": jax.ShapeDtypeStruct((2, 7), jnp.int32),
    }
    arguments = (params, batch, jax.random.key(0))
    forward = jax.make_jaxpr(lambda *args: task.loss(*args)[0])(*arguments)
    kinds = operands(forward)
    # Softmax and the losses; means and variances.
    assert set(kinds["exp"]) <= {"float32"}
    assert set(kinds["log"]) <= {"float32"}
    assert set(kinds["rsqrt"]) == {"float32"}
    step = jax.make_jaxpr(jax.value_and_grad(lambda *args: task.loss(*args)[0]))(*arguments)
    assert {x.dtype for x in step.out_avals} == {jnp.dtype("float32")}
    # Layers, forwards and backwards; in float32 are the logits of a contrastive loss and the scores
    # of attention on their way back.
    matmuls = operands(step)["dot_general"]
    assert matmuls["bfloat16"] > 4 * matmuls["float32"], matmuls
