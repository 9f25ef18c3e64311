"""CoCa's loss and gradients on eight simulated devices equal those on one, in float32."""

import jax
import numpy as np
import pytest

from capjax.models.coca import Model
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.parallel.sharding import parameter_shardings
from capjax.special_tokens import BOS_ID, EOS_ID, PAD_ID
from capjax.tasks.coca import Task
from capjax.train_step import loss_and_grads

VOCABULARY, LENGTH, SIDE, BATCH = 24, 8, 16, 16


@pytest.fixture(scope="module")
def batch():
    """Captions of different lengths, so that devices hold different numbers of words."""
    rng = np.random.default_rng(0)
    tokens = np.full((BATCH, LENGTH), PAD_ID, np.int32)
    for row in range(BATCH):
        words = rng.integers(4, VOCABULARY, 1 + row % (LENGTH - 2))
        tokens[row, : len(words) + 2] = [BOS_ID, *words, EOS_ID]
    return {"image": rng.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8), "tokens": tokens}


@pytest.fixture(scope="module", params=["bottleneck", "attention_pooling"])
def on(request, batch):
    """(loss, metrics, gradients) on a mesh of the given sizes."""
    queries = 2 if request.param == "attention_pooling" else 0
    shallow = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)  # quick to compile
    model = Model(
        VOCABULARY, LENGTH, SIDE, variant=request.param, caption_queries=queries, dropout=0.1,
        size_overrides=shallow,
    )  # fmt: skip
    task = Task(model=model, conditioning_dropout=0.5)
    params = jax.jit(task.init)(jax.random.key(0))

    def compute(**sizes):
        mesh = make_mesh(sizes)
        with jax.set_mesh(mesh):
            shardings = parameter_shardings(((".*", "fsdp"),), params, mesh)
            placed = jax.device_put(params, shardings)
            rows = put_batch(batch, batch_sharding(mesh))
            step = jax.jit(lambda p, b: loss_and_grads(task, p, b, jax.random.key(1)))
            return jax.device_get(step(placed, rows))

    return compute, compute(data=1)


@pytest.mark.parametrize("sizes", [dict(data=8), dict(data=2, fsdp=4)])
def test_eight_devices_equal_one(on, sizes):
    compute, (loss, metrics, gradients) = on
    got_loss, got_metrics, got_gradients = compute(**sizes)
    np.testing.assert_allclose(got_loss, loss, rtol=1e-5)
    for name, value in metrics.items():
        np.testing.assert_allclose(got_metrics[name], value, rtol=1e-5, err_msg=name)
    # Some gradients are zero but for rounding (the keys' biases, to which softmax is blind).
    noise = 1e-6 * max(np.abs(x).max() for x in jax.tree.leaves(gradients))
    jax.tree.map(
        lambda got, expected: np.testing.assert_allclose(got, expected, rtol=1e-5, atol=noise),
        got_gradients,
        gradients,
    )
