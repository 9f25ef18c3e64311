"""EfficientNet: the scaling table, parity with the public implementation, drop-connect."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest
from two_towers import drawn

from capjax.models.efficientnet import (
    COEFFICIENTS,
    STEM_CHANNELS,
    EfficientNet,
    MBConv,
    Stage,
    scale_channels,
    scale_stages,
)
from capjax.weights import align as names
from capjax.weights.table import to_params


def build(padding="same", **fields):
    return EfficientNet(jnp.dtype("float32"), padding, 0, **{"depthwise": "conv"} | fields)


# ALIGN's specification; B0 is the table of Tan and Le.
@pytest.mark.parametrize(
    ("name", "stem", "channels", "repeats", "blocks"),
    [
        ("B0", 32, [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1], 16),
        ("B1", 32, [16, 24, 40, 80, 112, 192, 320], [2, 3, 3, 4, 4, 5, 2], 23),
        ("B3", 40, [24, 32, 48, 96, 136, 232, 384], [2, 3, 3, 5, 5, 6, 2], 26),
        ("B5", 48, [24, 40, 64, 128, 176, 304, 512], [3, 5, 5, 7, 7, 9, 3], 39),
        ("B7", 64, [32, 48, 80, 160, 224, 384, 640], [4, 7, 7, 10, 10, 13, 4], 55),
        ("L2", 136, [72, 104, 176, 344, 480, 824, 1376], [6, 11, 11, 16, 16, 22, 6], 88),
    ],
)
def test_the_scaling_rule(name, stem, channels, repeats, blocks):
    width, depth = COEFFICIENTS[name]
    stages = scale_stages(width, depth)
    assert scale_channels(STEM_CHANNELS, width) == stem
    assert [stage.channels for stage in stages] == channels
    assert [stage.repeats for stage in stages] == repeats
    assert sum(stage.repeats for stage in stages) == blocks


@pytest.mark.parametrize("case", peer_cases.load("efficientnet"), ids=["even maps", "odd maps"])
def test_it_gives_what_transformers_gives(case):
    model = build(**case["model"])
    image = peer_cases.picture(case["image"])
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    table = names.efficientnet("", "")
    params = to_params(table, shapes, peer_cases.tensors(case), names.UNREAD)
    out = jax.jit(model.apply)({"params": params}, image)
    assert list(out.shape) == case["output_shapes"]["map"]
    expected = np.reshape(case["outputs"]["map"], out.shape)
    np.testing.assert_allclose(out, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "sides"),
    [
        (3, 1, "same", (6, 7)),
        (5, 2, "same", (6, 9)),
        (3, 2, "late", (7, 6)),
    ],
)
def test_tap_by_tap_is_the_same_convolution(kernel, stride, padding, sides):
    """A block's map, and the gradients by what it reads and by its parameters; odd maps too."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *sides, 8)).astype(np.float32)
    stage = Stage(kernel, stride, 2, 8, 1)

    def block(depthwise):
        return MBConv(jnp.dtype("float32"), padding, 0, depthwise, stage, stride, drop_rate=0.0)

    params = drawn(jax.eval_shape(block("conv").init, jax.random.key(0), x)["params"])

    @functools.partial(jax.jit, static_argnums=0)
    def loss_and_gradients(depthwise, params, x):
        def loss(params, x):
            y = block(depthwise).apply({"params": params}, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    conv, taps = (loss_and_gradients(d, params, x) for d in ("conv", "taps"))
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(conv))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), conv, taps)


def test_the_paddings_differ_on_odd_maps_alone():
    """A strided convolution over 36, 18, 9, ... pixels: the same up to the first odd map."""
    maps = {}
    for side in (32, 36):
        image = peer_cases.picture((1, side, side, 3))
        small = dict(width=0.25, depth=0.1)
        params = drawn(jax.eval_shape(build(**small).init, jax.random.key(0), image))
        maps[side] = [jax.jit(build(p, **small).apply)(params, image) for p in ("same", "late")]
    np.testing.assert_allclose(*maps[32], rtol=1e-5)
    same, late = maps[36]
    assert same.shape == (1, 2, 2, 80)
    assert late.shape == (1, 1, 1, 80)


def test_drop_connect_leaves_out_whole_branches():
    """A block whose branch is dropped gives back what it was given, picture by picture."""
    x = np.random.default_rng(0).normal(size=(16, 5, 5, 8)).astype(np.float32)
    block = MBConv(jnp.dtype("float32"), "same", 0, "conv", Stage(3, 1, 6, 8, 1), 1, drop_rate=0.5)
    params = drawn(jax.eval_shape(block.init, jax.random.key(0), x)["params"])
    rngs = {"dropout": jax.random.key(1)}
    train = jax.jit(lambda x: block.apply({"params": params}, x, True, rngs=rngs, mutable=True)[0])
    branch = np.abs(train(x) - x).max((1, 2, 3))
    assert 0 < np.sum(branch == 0) < 16
    assert branch[branch > 0].min() > 0.1
