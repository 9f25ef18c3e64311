"""Losses in blocks round a ring of devices: the numbers of the whole matrix, never its memory."""

import contrastive_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.errors import UserError
from capjax.parallel.contrastive import blockwise
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.tasks.contrastive_losses import contrastive_loss

VARIANTS = reference.variants()


def compute(kind, arrays, options, block):
    """((loss, accuracy), gradients), in float32."""
    step = jax.value_and_grad(
        lambda a: contrastive_loss(kind, **a, **options, block=block), has_aux=True
    )
    return jax.device_get(jax.jit(step)(arrays))


@pytest.fixture(scope="module")
def whole():
    return {
        name: compute(kind, arrays, options, 0)
        for name, (kind, arrays, options) in VARIANTS.items()
    }


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    ("sizes", "block"), [(None, 4), (dict(data=2), 4), (dict(data=2, fsdp=4), 2)]
)
def test_blocks_and_devices_change_nothing(name, sizes, block, whole):
    kind, arrays, options = VARIANTS[name]
    if sizes is None:
        got = compute(kind, arrays, options, block)
    else:
        mesh = make_mesh(sizes)
        with jax.set_mesh(mesh):
            if len(arrays["image"]) % mesh.size == 0:
                pairs = {side: arrays[side] for side in ("image", "text")}
                arrays = arrays | put_batch(pairs, batch_sharding(mesh))
            got = compute(kind, arrays, options, block)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), got, whole[name]
    )
    expected, _ = reference.loss(kind, **VARIANTS[name][1], **options)
    np.testing.assert_allclose(got[0][0], expected, rtol=2e-6)


def test_a_loss_that_sees_its_own_device_only_is_another(whole):
    kind, arrays, _ = VARIANTS["clip of 16"]
    scale = arrays["scale"]
    pairs = [arrays[side].reshape(8, 2, -1) for side in ("image", "text")]
    local = np.mean(jax.vmap(lambda i, t: contrastive_loss(kind, i, t, scale)[0])(*pairs))
    assert abs(local - whole["clip of 16"][0][0]) > 0.5


def test_large_logits_neither_overflow_nor_vanish():
    rng = np.random.default_rng(3)
    image, text = reference.unit(rng, 16, 4), reference.unit(rng, 16, 4)
    for scale in (100.0, 1e4):
        expected, _ = reference.loss("softmax", image, text, scale)
        got = contrastive_loss("softmax", image, text, scale, block=3)[0]
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_half_precision_embeddings_are_compared_in_float32():
    _, arrays, _ = VARIANTS["clip"]
    half = {n: jnp.asarray(arrays[n], jnp.bfloat16) for n in ("image", "text")}
    step = jax.value_and_grad(
        lambda i, t: contrastive_loss("softmax", i, t, 7.0, block=4)[0], argnums=(0, 1)
    )
    loss, gradients = jax.jit(step)(half["image"], half["text"])
    rounded = {name: np.asarray(x, np.float32) for name, x in half.items()}
    np.testing.assert_allclose(loss, reference.loss("softmax", **rounded, scale=7.0)[0], rtol=1e-5)
    assert loss.dtype == jnp.float32
    assert {x.dtype for x in gradients} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("sizes", [dict(data=1), dict(data=8)])
def test_no_array_of_pairs_by_pairs_exists(sizes):
    pairs, width, block = 2048, 16, 32

    def compiled(block):
        def loss(image, text, scale):
            return contrastive_loss("softmax", image, text, scale, block=block)[0]

        mesh = make_mesh(sizes)
        with jax.set_mesh(mesh):
            rows = jax.ShapeDtypeStruct((pairs, width), jnp.float32, sharding=batch_sharding(mesh))
            step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
            return step.lower(rows, rows, jnp.float32(1)).compile()

    flat = compiled(block).memory_analysis().temp_size_in_bytes
    devices = int(np.prod(list(sizes.values())))
    local = pairs // devices
    # Two tiles, and a dozen arrays like the embeddings of one device.
    assert flat < 4 * (2 * block * local + 12 * local * width)
    assert compiled(0).memory_analysis().temp_size_in_bytes > 4 * pairs * local


def test_a_block_without_rows_is_refused():
    with pytest.raises(UserError, match="block=0"):
        blockwise(None, None, None, 1.0, 0.0, 0)
