"""Microbatches of a contrastive task: the gradient of the whole batch, dropout included."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.errors import UserError
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.tasks.contrastive import Task
from capjax.tasks.contrastive_losses import clip_scale, contrastive_loss
from capjax.train_step import loss_and_grads

BATCH, SIDE, LENGTH = 32, 4, 5


class Towers(nn.Module):
    """One layer with dropout for each side."""

    rate: float = 0.0
    image_size: int = SIDE
    max_length: int = LENGTH

    def setup(self):
        self.image_tower, self.text_tower = nn.Dense(6), nn.Embed(20, 6)
        self.drop = nn.Dropout(self.rate)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(2.0), ())

    def embed_image(self, image, train=False):
        return self._unit(self.image_tower(image.reshape(len(image), -1) / 255.0 - 0.5), train)

    def embed_text(self, tokens, train=False):
        return self._unit(self.text_tower(tokens).mean(1), train)

    def __call__(self, image, tokens):
        return self.embed_image(image), self.embed_text(tokens)

    def _unit(self, x, train):
        x = self.drop(x, deterministic=not train)
        return x / (jnp.linalg.norm(x, axis=1, keepdims=True) + 1e-6)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8),
        "tokens": rng.integers(0, 20, (BATCH, LENGTH)).astype(np.int32),
        "class_id": rng.integers(-1, 9, BATCH).astype(np.int32),
    }


def on_mesh(task, batch, steps, **sizes):
    """(loss, metrics, gradients) in `steps` microbatches."""
    params = task.init(jax.random.key(0))
    mesh = make_mesh(sizes)
    with jax.set_mesh(mesh):
        rows = put_batch(batch, batch_sharding(mesh))
        compute = jax.jit(lambda p, b: loss_and_grads(task, p, b, jax.random.key(1), steps))
        return jax.device_get(compute(params, rows))


def assert_same(got, expected):
    noise = 1e-6 * max(np.abs(x).max() for x in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=noise), got, expected
    )


OPTIONS = [
    dict(),
    dict(loss="softmax", reduction="sum", label_smoothing=0.1, block=3, initial_scale=1.0),
    dict(loss="unicl", block=4),
    dict(loss="sigmoid", initial_scale=10.0, initial_bias=-3.0, block=4),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda x: x.get("loss", "default"))
def test_microbatches_give_the_gradient_of_the_whole_batch(options, batch):
    task = Task(model=Towers(), **options)
    expected = on_mesh(task, batch, 1, data=1)
    assert expected[1]["contrastive_accuracy"] < 1
    assert_same(on_mesh(task, batch, 4, data=1), expected)
    assert_same(on_mesh(task, batch, 4, data=2, fsdp=4), expected)
    for gradient in jax.tree.leaves(expected[2]):
        assert np.any(gradient != 0)


def test_dropout_is_the_same_in_both_passes(batch):
    task, steps, rng = Task(model=Towers(rate=0.3)), 4, jax.random.key(1)
    params = task.init(jax.random.key(0))

    def by_hand(params):
        """All microbatches embedded at once, each with its own key."""
        parts = [jax.tree.map(lambda x, k=k: x[k::steps], batch) for k in range(steps)]
        embedded = [
            task.model.apply(
                {"params": params},
                rngs={"dropout": jax.random.fold_in(rng, k)},
                method=lambda model, part=part: (
                    model.embed_image(part["image"], train=True),
                    model.embed_text(part["tokens"], train=True),
                ),
            )
            for k, part in enumerate(parts)
        ]
        image, text = (jnp.concatenate(x) for x in zip(*embedded, strict=True))
        return contrastive_loss("softmax", image, text, clip_scale(params["logit_scale"]))[0]

    expected_loss, expected = jax.jit(jax.value_and_grad(by_hand))(params)
    loss, _, gradients = on_mesh(task, batch, steps, data=1)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    assert_same(gradients, expected)
    plain = on_mesh(Task(model=Towers()), batch, steps, data=1)[0]
    assert abs(loss - plain) > 1e-3  # there is dropout to speak of


def test_negatives_of_the_microbatch_alone_give_another_gradient(batch):
    class Forgetful(Task):
        accumulate = property()  # not offered

    exact = on_mesh(Task(model=Towers()), batch, 4, data=1)
    local = on_mesh(Forgetful(model=Towers()), batch, 4, data=1)
    assert abs(exact[0] - local[0]) > 0.5
    kernel = [x[2]["image_tower"]["kernel"] for x in (exact, local)]
    assert np.linalg.norm(kernel[0] - kernel[1]) > 0.1 * np.linalg.norm(kernel[0])


def test_scale_and_bias_begin_where_the_config_says():
    params = Task(model=Towers(), loss="sigmoid", initial_scale=10.0).init(jax.random.key(0))
    np.testing.assert_allclose(params["logit_scale"], np.log(10), rtol=1e-6)
    assert params["logit_bias"] == -10
    params = Task(model=Towers()).init(jax.random.key(0))
    assert params["logit_scale"] == 2
    assert "logit_bias" not in params


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(loss="clip"), "unknown contrastive loss 'clip'"),
        (dict(initial_scale=0.0), "initial_scale=0.0 must be above 0"),
        (dict(initial_scale=200.0), "is above max_scale=100.0"),
        (dict(max_scale=-1.0), "max_scale=-1.0"),
        (dict(block=-5), "block=-5"),
    ],
)
def test_options_that_cannot_be_are_refused_before_training(options, message):
    with pytest.raises(UserError, match=message):
        Task(model=Towers(), **options)


def test_batches_that_cannot_be_are_refused(batch):
    task = Task(model=Towers())
    with pytest.raises(UserError, match="accumulate_steps=3 does not divide a batch of 32"):
        on_mesh(task, batch, 3, data=1)
    with pytest.raises(UserError, match="not a batch of 1"):
        on_mesh(task, {name: x[:1] for name, x in batch.items()}, 1, data=1)
    without = {name: x for name, x in batch.items() if name != "class_id"}
    with pytest.raises(UserError, match="needs a label for each pair"):
        on_mesh(Task(model=Towers(), loss="unicl"), without, 1, data=1)
