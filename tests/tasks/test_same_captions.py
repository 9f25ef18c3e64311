"""Captions that repeat within a batch: counted, and on request no negatives of each other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.tasks.contrastive import Task
from capjax.tasks.contrastive_losses import contrastive_loss
from capjax.tasks.same_captions import caption_numbers, duplicates


def test_equal_rows_and_only_these_have_equal_numbers():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 5, (4000, 7))
    numbers = np.asarray(caption_numbers(jnp.asarray(rows)))
    distinct = len({tuple(row) for row in rows})
    assert distinct < 4000
    assert len(set(numbers.tolist())) == distinct
    assert int(duplicates(jnp.asarray(numbers))) == 4000 - distinct
    # Neighbouring ids in other places, and padding, are no collisions.
    lines = np.array([[1, 2, 0], [2, 1, 0], [0, 1, 2], [1, 2, 1], [49_407, 0, 0], [0, 0, 49_407]])
    assert len(set(np.asarray(caption_numbers(jnp.asarray(lines))).tolist())) == len(lines)


class Given(nn.Module):
    """Embeddings that do not depend on the batch's contents."""

    vocab_size: int = 9
    max_length: int = 3
    image_size: int = 2

    @nn.compact
    def __call__(self, image, tokens, train=False):
        self.param("logit_scale", nn.initializers.constant(1.0), ())
        return self.embed_image(image), self.embed_text(tokens)

    def embed_image(self, image, train=False):
        return jax.random.normal(jax.random.key(0), (len(image), 4))

    def embed_text(self, tokens, train=False):
        return jax.random.normal(jax.random.key(1), (len(tokens), 4))


@pytest.mark.parametrize("block", [0, 2])
def test_pairs_of_one_caption_are_negatives_unless_ignored(block):
    tokens = jnp.array([[1, 2, 0], [3, 4, 0], [1, 2, 0], [3, 4, 0], [1, 2, 0]])
    batch = {"image": jnp.zeros((5, 2, 2, 3), jnp.uint8), "tokens": tokens}
    task = Task(model=Given(), block=block)
    params = task.init(jax.random.key(0))
    image, text = Given().embed_image(batch["image"]), Given().embed_text(tokens)
    scale = jnp.exp(params["logit_scale"])
    for ignore, groups in ((False, None), (True, jnp.array([0, 1, 0, 1, 0]))):
        task = Task(model=Given(), block=block, ignore_duplicates=ignore)
        loss, metrics = task.loss(params, batch, jax.random.key(0))
        expected, _ = contrastive_loss("softmax", image, text, scale, groups=groups)
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)
        assert int(metrics["duplicate_captions"]) == 3
