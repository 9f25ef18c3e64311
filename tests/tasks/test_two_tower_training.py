"""What a contrastive task hands to models and back: statistics of BatchNorm, sources of texts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from capjax.errors import UserError
from capjax.models import clip
from capjax.models.batch_norm import COLLECTION, BatchNorm
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.tasks.contrastive import Task
from capjax.train_step import abstract_state, init_state, loss_and_grads, make_step

BATCH, SIDE, LENGTH, MOMENTUM = 16, 4, 5, 0.9


class Normed(nn.Module):
    """Pictures through a BatchNorm of 3 channels; texts through a table."""

    image_size: int = SIDE
    max_length: int = LENGTH

    def setup(self):
        self.norm = BatchNorm(epsilon=1e-3, momentum=MOMENTUM)
        self.image_tower, self.text_tower = nn.Dense(6), nn.Embed(20, 6)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(2.0), ())

    def embed_image(self, image, train=False):
        x = self.norm(image.astype(jnp.float32) / 255.0, train)
        return self._unit(self.image_tower(x.reshape(len(image), -1)))

    def embed_text(self, tokens, train=False):
        return self._unit(self.text_tower(tokens).mean(1))

    def __call__(self, image, tokens):
        return self.embed_image(image), self.embed_text(tokens)

    def _unit(self, x):
        return x / (jnp.linalg.norm(x, axis=1, keepdims=True) + 1e-6)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8),
        "tokens": rng.integers(3, 20, (BATCH, LENGTH)).astype(np.int32),
    }


def one_step(task, batch, accumulate_steps, **sizes):
    """(parameters before, after one step of the loop, metrics)."""
    tx, mesh = optax.adamw(0.1, weight_decay=0.5), make_mesh(sizes)
    with jax.set_mesh(mesh):
        abstract = abstract_state(task, tx, 0.0, ((".*", "fsdp"),), mesh)
        state = init_state(task, tx, 0.0, abstract, 0)
        before = jax.device_get(state["params"])
        step = make_step(
            task,
            tx,
            lambda count: 0.1,
            seed=0,
            accumulate_steps=accumulate_steps,
            ema_decay=0.0,
            abstract=abstract,
            mesh=mesh,
        )
        state, metrics = step(state, put_batch(batch, batch_sharding(mesh)))
        return before, jax.device_get(state["params"]), jax.device_get(metrics)


@pytest.mark.parametrize(("accumulate_steps", "devices"), [(1, 1), (1, 8), (2, 1), (2, 8)])
def test_the_loop_keeps_the_statistics_of_batch_norm(batch, accumulate_steps, devices):
    before, after, metrics = one_step(Task(model=Normed()), batch, accumulate_steps, data=devices)
    # Microbatch k has the rows k, k + K, ...: their statistics are averaged.
    parts = [batch["image"][k::accumulate_steps] / 255.0 for k in range(accumulate_steps)]
    mean = np.mean([part.mean((0, 1, 2)) for part in parts], 0)
    var = np.mean([part.var((0, 1, 2)) for part in parts], 0)
    norm = after["norm"]
    np.testing.assert_allclose(norm["mean"], (1 - MOMENTUM) * mean, rtol=1e-5)
    np.testing.assert_allclose(norm["var"], MOMENTUM + (1 - MOMENTUM) * var, rtol=1e-5)
    assert np.abs(norm["scale"] - before["norm"]["scale"]).max() > 0.01  # the optimiser's own
    assert COLLECTION not in metrics
    assert all(np.ndim(value) == 0 for value in metrics.values())


def test_statistics_have_no_gradient(batch):
    task = Task(model=Normed())
    params = task.init(jax.random.key(0))
    _, _, grads = loss_and_grads(task, params, batch, jax.random.key(1), 1)
    assert not np.any(grads["norm"]["mean"])
    assert not np.any(grads["norm"]["var"])
    assert np.any(grads["norm"]["scale"])


TINY = dict(
    image_layers=1,
    image_width=16,
    image_heads=1,
    patch_size=4,
    text_layers=1,
    text_width=16,
    text_heads=1,
    embedding_dim=8,
)


@pytest.fixture(scope="module")
def told():
    model = clip.Model(20, LENGTH, SIDE, overrides=TINY, prefixes=("cap", "cls"), test_prefix="cap")
    task = Task(model=model)
    params = jax.jit(task.init)(jax.random.key(0))
    compute = jax.jit(lambda batch: loss_and_grads(task, params, batch, jax.random.key(1), 1))
    return task, params, compute


def test_only_the_prefix_of_a_batchs_source_learns(told, batch):
    _, _, compute = told
    for number, (own, other) in enumerate((("cap", "cls"), ("cls", "cap"))):
        _, _, grads = compute(batch | {"source": np.full(BATCH, number, np.int32)})
        assert np.all(grads["text_tower"][f"prefix_{other}"] == 0)
        assert np.any(grads["text_tower"][f"prefix_{own}"] != 0)


def test_training_must_say_where_a_text_comes_from(told, batch):
    task, params, compute = told
    with pytest.raises(UserError, match=r"does not say where a pair comes from.*mixture"):
        task.loss(params, batch, jax.random.key(0))
    for unknown in (-1, 2):
        loss, _, _ = compute(batch | {"source": np.full(BATCH, unknown, np.int32)})
        assert np.isnan(loss)
