"""Named sizes. A config names one and may override any of its fields.

`base` and `large` are CoCa's (arXiv 2205.01917, table 1) and ViT's; `small` is ViT-S with text to
match; `mini` learns from thousands of photographs on a few cores; `tiny` learns generated scenes
in a minute and is what tests use.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from capjax.models import variants
from capjax.models.transformer import BlockConfig


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths and depths. A tower's MLP is four times as wide as the tower."""

    image_layers: int
    image_width: int
    image_heads: int
    unimodal_layers: int  # the text tower
    multimodal_layers: int  # the caption decoder; a dual encoder has none
    text_width: int
    text_heads: int
    embedding_dim: int  # width of the pooled picture and of the contrastive space


SIZES = {
    "tiny": Size(2, 64, 4, 2, 2, 64, 4, 64),
    "mini": Size(6, 192, 6, 3, 3, 192, 6, 192),
    "small": Size(12, 384, 6, 6, 6, 384, 6, 384),
    "base": Size(12, 768, 12, 12, 12, 768, 12, 768),
    "large": Size(24, 1024, 16, 12, 12, 1024, 16, 1024),
}


def resolve(size: str, overrides: dict[str, Any]) -> Size:
    """The named size with some of its fields replaced; UserError for a name it does not know."""
    return variants.resolve("model size", SIZES, size, "size_overrides", overrides)


def block_configs(
    size: Size, dropout: float, dtype: str, attention: str
) -> tuple[BlockConfig, BlockConfig]:
    """What the blocks of the image tower and of both text halves share, in this order."""
    rest = (dropout, jnp.dtype(dtype), attention)
    return (
        BlockConfig(size.image_width, size.image_heads, 4 * size.image_width, *rest),
        BlockConfig(size.text_width, size.text_heads, 4 * size.text_width, *rest),
    )
