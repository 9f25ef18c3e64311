"""ALIGN (arXiv 2102.05918): EfficientNet and BERT, each ending in one vector of a common space.

    picture --EfficientNet--> last map --mean [--linear]--> unit vector
    text ----BERT--> state of [CLS], raw --linear--> unit vector

Without `embedding_dim` the space is as wide as the last map, and the picture has no linear layer
(the headline model); with it both towers project to it (the ablations). The temperature sigma that
divides the logits starts at 1 and is kept as logit_scale = log(1 / sigma).

Letters: B batch, S side in pixels, L tokens, E embedding width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from capjax.models import bert, efficientnet, variants
from capjax.models.coca import unit
from capjax.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class Variant:
    """The scaling of EfficientNet, and the size of BERT."""

    image_width: float
    image_depth: float
    text_layers: int
    text_width: int
    text_heads: int


def _variant(image: str, text: str) -> Variant:
    size = bert.SIZES[text]
    return Variant(*efficientnet.COEFFICIENTS[image], size.layers, size.width, size.width // 64)


VARIANTS = {
    f"{image}-{text}": _variant(image, text)
    for image, text in (("B3", "mini"), ("B5", "base"), ("B7", "base"), ("L2", "large"))
}


class Model(nn.Module):
    """Pictures are uint8 [B,S,S,3], tokens int32 [B,L]; embeddings float32 [B,E], unit length.

    batch_norm_group: pictures whose BatchNorm statistics are theirs alone in training (16 a core in
      the paper); a batch must be a multiple of it. 0: the whole batch is one.
    depthwise: "conv" or "taps", for a CPU; see `efficientnet.Layers`.
    """

    vocab_size: int
    max_length: int
    image_size: int
    variant: str = "B7-base"
    overrides: Mapping[str, Any] | None = None
    special_tokens: SpecialTokens = SpecialTokens()
    embedding_dim: int = 0  # 0: that of the last map, without a projection of pictures
    batch_norm_group: int = 16
    depthwise: str = "conv"
    drop_connect: float = 0.2
    dropout: float = 0.1  # of BERT; its attention weights are not dropped
    dtype: str = "float32"  # of the computation; parameters are float32
    remat: str = "none"  # of BERT's blocks
    attention: str = "xla"

    def __post_init__(self):
        # Frozen, because a model is hashed as a static argument of jitted functions.
        object.__setattr__(self, "overrides", FrozenDict(self.overrides or {}))
        super().__post_init__()

    def setup(self):
        v = variants.resolve("ALIGN variant", VARIANTS, self.variant, "overrides", self.overrides)
        dtype = jnp.dtype(self.dtype)
        self.image_tower = efficientnet.EfficientNet(
            dtype,
            "late",
            self.batch_norm_group,
            self.depthwise,
            v.image_width,
            v.image_depth,
            drop_connect=self.drop_connect,
        )
        self.text_tower = bert.Bert(
            self.vocab_size,
            self.max_length,
            v.text_layers,
            bert.block_config(v.text_width, v.text_heads, self.dropout, dtype, self.attention),
            self.remat,
        )
        if self.embedding_dim:
            self.image_projection = nn.Dense(self.embedding_dim, dtype=dtype)
        last_map = efficientnet.scale_stages(v.image_width, v.image_depth)[-1].channels
        self.text_projection = nn.Dense(self.embedding_dim or last_map, dtype=dtype)
        self.logit_scale = self.param("logit_scale", nn.initializers.zeros, ())

    def embed_image(self, image: jax.Array, train: bool = False) -> jax.Array:
        """uint8 [B,S,S,3] -> float32 [B,E]."""
        if image.shape[1:] != (self.image_size, self.image_size, 3):
            raise ValueError(
                f"pictures of shape {image.shape[1:]} do not fit image_size={self.image_size}"
            )
        pooled = self.image_tower(image, train).mean((1, 2))
        return unit(self.image_projection(pooled) if self.embedding_dim else pooled)

    def embed_text(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """int32 [B,L] -> float32 [B,E]."""
        words = self.special_tokens.until_end(tokens)
        return unit(self.text_projection(self.text_tower(tokens, words, train)[:, 0]))

    def __call__(self, image: jax.Array, tokens: jax.Array, train: bool = False):
        """Both embeddings of a batch of pairs: ([B,E], [B,E])."""
        return self.embed_image(image, train), self.embed_text(tokens, train)
