"""A plain dual encoder: a picture and a text, each one vector of a common space.

The image tower is a ViT pooled by one learned query, the text tower a causal transformer whose
[CLS] reads the whole text; the same parts as CoCa's, without the caption decoder.

Letters: B batch, S side in pixels, L caption positions, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np
from flax.core import FrozenDict

from capjax.models import sizes
from capjax.models.coca import INITIAL_TEMPERATURE, unit
from capjax.models.pooler import AttentionalPooler
from capjax.models.text import TextTower
from capjax.models.vit import ViT
from capjax.special_tokens import SpecialTokens


class Model(nn.Module):
    """Pictures are uint8 [B,S,S,3], tokens int32 [B,L]; embeddings float32 [B,E], unit length."""

    vocab_size: int
    max_length: int
    image_size: int
    size: str = "tiny"
    size_overrides: Mapping[str, int] | None = None
    patch_size: int = 8
    stem: str = "patch"
    dropout: float = 0.0
    dtype: str = "float32"  # of the computation; parameters are float32
    remat: str = "none"
    attention: str = "xla"
    special_tokens: SpecialTokens = SpecialTokens()

    def __post_init__(self):
        # Frozen, because a model is hashed as a static argument of jitted functions.
        object.__setattr__(self, "size_overrides", FrozenDict(self.size_overrides or {}))
        super().__post_init__()

    def setup(self):
        s = sizes.resolve(self.size, self.size_overrides)
        image, text = sizes.block_configs(s, self.dropout, self.dtype, self.attention)
        dtype = image.dtype
        self.image_tower = ViT(
            s.image_layers, image, self.image_size, self.patch_size, self.stem, self.remat
        )
        self.image_pooler = AttentionalPooler(
            1, s.embedding_dim, s.image_heads, dtype, self.attention
        )
        self.text_tower = TextTower(
            self.vocab_size, self.max_length, s.unimodal_layers, text, self.remat
        )
        self.image_projection = nn.Dense(s.embedding_dim, use_bias=False, dtype=dtype)
        self.text_projection = nn.Dense(s.embedding_dim, use_bias=False, dtype=dtype)
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(np.log(1 / INITIAL_TEMPERATURE)), ()
        )

    def embed_image(self, image: jax.Array, train: bool = False) -> jax.Array:
        """uint8 [B,S,S,3] -> float32 [B,E]."""
        pooled = self.image_pooler(self.image_tower(image, train))[:, 0]
        return unit(self.image_projection(pooled))

    def embed_text(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """int32 [B,L] -> float32 [B,E]."""
        _, cls = self.text_tower(tokens[:, :-1], self.special_tokens.to_write(tokens), train)
        return unit(self.text_projection(cls))

    def __call__(self, image: jax.Array, tokens: jax.Array, train: bool = False):
        """Both embeddings of a batch of pairs: ([B,E], [B,E])."""
        return self.embed_image(image, train), self.embed_text(tokens, train)
