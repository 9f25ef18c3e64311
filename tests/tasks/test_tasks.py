"""Losses against hand-written NumPy, conditioning dropout, and what each task trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.errors import UserError
from capjax.models.coca import Model
from capjax.models.dual_encoder import Model as DualEncoder
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.special_tokens import BOS_ID, EOS_ID, PAD_ID
from capjax.tasks import caption, coca, contrastive
from capjax.tasks.contrastive_losses import MAX_LOGIT_SCALE
from capjax.tasks.losses import caption_cross_entropy, softmax_contrastive
from capjax.train_step import loss_and_grads

VOCABULARY, LENGTH, SIDE, BATCH = 17, 7, 16, 8
SHALLOW = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)  # quick to compile


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    tokens = np.full((BATCH, LENGTH), PAD_ID, np.int32)
    for row in range(BATCH):
        words = rng.integers(4, VOCABULARY, rng.integers(1, LENGTH - 1))
        tokens[row, : len(words) + 2] = [BOS_ID, *words, EOS_ID]
    image = rng.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)
    return {"image": image, "tokens": tokens}


@pytest.fixture(scope="module")
def model():
    return Model(VOCABULARY, LENGTH, SIDE, size_overrides=SHALLOW)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(caption.Task(model=model).init)(jax.random.key(0))


def test_caption_cross_entropy_is_the_mean_over_words():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 3, 5))
    targets, words = np.array([[1, 2, 0], [3, 0, 0]]), np.array([[1, 1, 0], [1, 0, 0]], bool)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    by_hand = -(log_p[0, 0, 1] + log_p[0, 1, 2] + log_p[1, 0, 3]) / 3
    loss, count = caption_cross_entropy(jnp.array(logits), jnp.array(targets), jnp.array(words))
    np.testing.assert_allclose(loss, by_hand, rtol=1e-6)
    assert count == 3


@pytest.mark.parametrize("size", [2, 5])
def test_contrastive_loss_and_gradient_equal_float64_numpy(size):
    rng = np.random.default_rng(size)
    image, text = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, size, 4))
    )
    log_scale = np.log(7.0)

    def by_hand(image, text, log_scale):
        logits = np.exp(log_scale) * image @ text.T
        rows = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        columns = logits - np.log(np.exp(logits).sum(0, keepdims=True))
        return -(np.trace(rows) + np.trace(columns)) / (2 * size)

    value = lambda *args: softmax_contrastive(*args)[0]  # noqa: E731
    arguments = [jnp.array(x, jnp.float32) for x in (image, text, log_scale)]
    np.testing.assert_allclose(value(*arguments), by_hand(image, text, log_scale), rtol=1e-5)
    gradient = jax.grad(value, argnums=(0, 2))(*arguments)
    step = 1e-6
    bump = np.zeros_like(image)
    bump[0, 1] = step
    numeric = by_hand(image + bump, text, log_scale) - by_hand(image - bump, text, log_scale)
    np.testing.assert_allclose(gradient[0][0, 1], numeric / (2 * step), rtol=1e-3)
    numeric = by_hand(image, text, log_scale + step) - by_hand(image, text, log_scale - step)
    np.testing.assert_allclose(gradient[1], numeric / (2 * step), rtol=1e-3)


def test_logit_scale_is_clipped():
    same = jnp.eye(2)
    at_limit = softmax_contrastive(same, same[::-1], jnp.log(MAX_LOGIT_SCALE))[0]
    beyond = softmax_contrastive(same, same[::-1], jnp.log(MAX_LOGIT_SCALE) + 3)[0]
    np.testing.assert_allclose(at_limit, beyond)
    np.testing.assert_allclose(at_limit, MAX_LOGIT_SCALE)


def test_dropped_rows_are_all_zero_and_kept_rows_untouched():
    context = jax.random.normal(jax.random.key(0), (400, 3, 5))
    dropped = caption.drop_conditioning(jax.random.key(1), context, 0.5)
    zero = np.all(np.asarray(dropped) == 0, axis=(1, 2))
    assert 150 < zero.sum() < 250
    np.testing.assert_array_equal(dropped[~zero], context[~zero])


def test_full_dropout_is_the_loss_of_a_blind_captioner(model, params, batch):
    loss = jax.jit(caption.Task(model=model, conditioning_dropout=1.0).loss)
    other = {**batch, "image": 255 - batch["image"]}
    blind, metrics = loss(params, batch, jax.random.key(0))
    np.testing.assert_array_equal(blind, loss(params, other, jax.random.key(0))[0])
    seeing = jax.jit(caption.Task(model=model, conditioning_dropout=0.0).loss)
    assert (
        seeing(params, batch, jax.random.key(0))[0] != seeing(params, other, jax.random.key(0))[0]
    )
    assert metrics["weight"] == np.sum(batch["tokens"][:, 1:] != PAD_ID)


def test_full_dropout_gives_the_picture_no_gradient(model, params, batch):
    loss = lambda p, rate: caption.Task(model=model, conditioning_dropout=rate).loss(  # noqa: E731
        p, batch, jax.random.key(0)
    )[0]
    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    dropped, kept = gradient(params, 1.0), gradient(params, 0.0)
    assert all(np.all(x == 0) for x in jax.tree.leaves(dropped["image_tower"]))
    assert any(np.any(x != 0) for x in jax.tree.leaves(kept["image_tower"]))


def test_coca_is_the_weighted_sum_and_contrast_ignores_dropout(model, params, batch):
    def metrics(rate):
        task = coca.Task(
            model=model, contrastive_weight=0.5, caption_weight=3.0, conditioning_dropout=rate
        )
        return jax.jit(task.loss)(params, batch, jax.random.key(0))

    loss, seen = metrics(0.0)
    np.testing.assert_allclose(
        loss, 0.5 * seen["contrastive_loss"] + 3 * seen["caption_loss"], rtol=1e-6
    )
    _, dropped = metrics(1.0)
    np.testing.assert_allclose(seen["contrastive_loss"], dropped["contrastive_loss"], rtol=1e-6)
    assert seen["caption_loss"] != dropped["caption_loss"]


def test_coca_in_microbatches_is_coca_of_the_whole_batch(model, batch):
    """Two means over microbatches would not be it: captions differ in length, and pairs meet."""
    tokens = batch["tokens"].copy()
    tokens[1::2, 3:] = PAD_ID  # the rows of the second microbatch
    batch = {**batch, "tokens": tokens}

    class Forgetful(coca.Task):
        accumulate = property()  # not offered

    params = jax.device_get(jax.jit(coca.Task(model=model).init)(jax.random.key(0)))

    def step(kind, microbatches):
        task, mesh = kind(model=model), make_mesh({"data": 2})
        with jax.set_mesh(mesh):
            rows = put_batch(batch, batch_sharding(mesh))
            compute = jax.jit(loss_and_grads, static_argnums=(0, 4))
            return jax.device_get(compute(task, params, rows, jax.random.key(0), microbatches))

    whole, parts = step(coca.Task, 1), step(coca.Task, 2)
    scale = max(np.abs(x).max() for x in jax.tree.leaves(whole))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6 * scale), parts, whole
    )
    assert abs(step(Forgetful, 2)[0] - whole[0]) > 0.1


@pytest.mark.parametrize("kind", [Model, DualEncoder])
def test_contrastive_task_uses_both_towers(kind, batch):
    """One loss for every model that embeds pictures and texts."""
    task = contrastive.Task(model=kind(VOCABULARY, LENGTH, SIDE, size_overrides=SHALLOW))
    params = jax.jit(task.init)(jax.random.key(0))
    (loss, metrics), gradient = jax.jit(jax.value_and_grad(task.loss, has_aux=True))(
        params, batch, jax.random.key(0)
    )
    assert np.isfinite(loss)
    assert metrics["logit_scale"] == pytest.approx(1 / 0.07, rel=1e-5)
    for tower in ("image_tower", "text_tower"):
        assert any(np.any(x != 0) for x in jax.tree.leaves(gradient[tower]))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("task", [caption.Task, coca.Task])
def test_a_rate_that_is_no_probability_is_refused(task, rate, model):
    with pytest.raises(UserError, match="conditioning_dropout"):
        task(model=model, conditioning_dropout=rate)
