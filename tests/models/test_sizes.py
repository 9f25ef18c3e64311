"""Named sizes have the parameter counts of the models they are named after."""

import jax
import jax.numpy as jnp
import pytest

from capjax.errors import UserError
from capjax.models import sizes
from capjax.models.coca import Model


def millions(tree):
    return sum(x.size for x in jax.tree.leaves(tree)) / 1e6


@pytest.mark.parametrize(
    # CoCa (arXiv 2205.01917), table 1: parameters of the image encoder and of both text halves.
    ("size", "image", "text"),
    [("base", 86, 297), ("large", 303, 484)],
)
def test_coca_sizes(size, image, text):
    model = Model(
        64_000, 64, 288, size=size, patch_size=18, variant="attention_pooling", caption_queries=256
    )
    picture, tokens = jnp.zeros((1, 288, 288, 3), jnp.uint8), jnp.zeros((1, 64), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), picture, tokens)["params"]
    assert millions(params["image_tower"]) == pytest.approx(image, rel=0.01)
    halves = millions(params["text_tower"]) + millions(params["caption_decoder"])
    assert halves == pytest.approx(text, rel=0.01)
    poolers = millions(params["caption_pooler"]) + millions(params["contrastive_pooler"])
    assert poolers < 0.03 * millions(params)


def test_a_size_can_be_changed_in_part():
    changed = sizes.resolve("tiny", {"image_layers": 5})
    assert (changed.image_layers, changed.image_width) == (5, sizes.SIZES["tiny"].image_width)
    with pytest.raises(UserError, match="unknown model size 'huge': choose one of tiny"):
        sizes.resolve("huge", {})
    with pytest.raises(UserError, match="unknown field 'depth' in size_overrides"):
        sizes.resolve("tiny", {"depth": 3})
