"""SigLIP (Zhai et al. 2023, arXiv 2303.15343): two towers for the sigmoid loss.

    picture --ViT without class token--> patches --attention pooling (MAP head)--> unit vector
    text ----transformer, every token sees every other--> last token --linear--> unit vector

A text is a row of `max_length` tokens, padding included: the published weights read the padding
like any word, and the last token, most often padding, is the text's.

Letters: B batch, S side in pixels, L tokens, D width of both towers and of the embeddings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from capjax.errors import UserError
from capjax.models import variants
from capjax.models.coca import unit
from capjax.models.pooler import MapHead
from capjax.models.text_encoder import TextEncoder
from capjax.models.transformer import BlockConfig, BlockInit, activation_of
from capjax.models.vit import ViT
from capjax.special_tokens import SpecialTokens

VOCABULARY, CONTEXT = 32_000, 64  # of the published English weights
INITIAL_SCALE, INITIAL_BIAS = 10.0, -10.0


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes, shared by both towers."""

    image_size: int  # of the smallest published weights
    patch_size: int
    layers: int
    width: int
    heads: int
    mlp_dim: int
    activation: str = "gelu_tanh"


VARIANTS = {
    "ViT-B/16": Variant(224, 16, 12, 768, 12, 3072),
    "ViT-L/16": Variant(256, 16, 24, 1024, 16, 4096),
    "ViT-So400m/14": Variant(224, 14, 27, 1152, 16, 4304),
}


class Model(nn.Module):
    """Pictures are uint8 [B,S,S,3], tokens int32 [B,L]; embeddings float32 [B,D], unit length.

    The loss takes sigmoid(exp(logit_scale) <image, text> + logit_bias); both are parameters.
    """

    vocab_size: int
    max_length: int
    image_size: int
    variant: str = "ViT-B/16"
    overrides: Mapping[str, Any] | None = None
    special_tokens: SpecialTokens = SpecialTokens()  # of its tokenizer; all are read alike
    dropout: float = 0.0
    dtype: str = "float32"  # of the computation; parameters are float32
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self):
        # Frozen, because a model is hashed as a static argument of jitted functions.
        object.__setattr__(self, "overrides", FrozenDict(self.overrides or {}))
        super().__post_init__()

    def setup(self):
        v = variants.resolve("SigLIP variant", VARIANTS, self.variant, "overrides", self.overrides)
        config = block_config(v, self.dropout, jnp.dtype(self.dtype), self.attention)
        self.image_tower = vit(v, config, self.image_size, self.remat)
        self.image_head = MapHead(config)
        self.text_tower = TextEncoder(
            self.vocab_size,
            self.max_length,
            v.layers,
            config,
            causal=False,
            token_std=v.width**-0.5,
            position_std=v.width**-0.5,
            remat=self.remat,
        )
        self.text_head = nn.Dense(v.width, dtype=config.dtype)
        constant = nn.initializers.constant
        self.logit_scale = self.param("logit_scale", constant(np.log(INITIAL_SCALE)), ())
        self.logit_bias = self.param("logit_bias", constant(INITIAL_BIAS), ())

    def embed_image(self, image: jax.Array, train: bool = False) -> jax.Array:
        """uint8 [B,S,S,3] -> float32 [B,D]."""
        return unit(self.image_head(self.image_tower(image, train)))

    def embed_text(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """int32 [B,L] -> float32 [B,D]; UserError unless L is `max_length`."""
        if tokens.shape[1] != self.max_length:
            raise UserError(
                f"SigLIP reads texts padded to its max_length={self.max_length}, not rows of "
                f"{tokens.shape[1]} tokens: pad or truncate them"
            )
        return unit(self.text_head(self.text_tower(tokens, train)[:, -1]))

    def __call__(self, image: jax.Array, tokens: jax.Array, train: bool = False):
        """Both embeddings of a batch of pairs: ([B,D], [B,D])."""
        return self.embed_image(image, train), self.embed_text(tokens, train)


def block_config(v: Variant, dropout: float, dtype: jnp.dtype, attention: str) -> BlockConfig:
    """The blocks of both towers."""
    return BlockConfig(
        v.width,
        v.heads,
        v.mlp_dim,
        dropout,
        dtype,
        attention,
        activation_of(v.activation),
        init=BlockInit(*[nn.initializers.xavier_uniform()] * 4),
    )


def vit(v: Variant, blocks: BlockConfig, image_size: int, remat: str) -> ViT:
    """SigLIP's Vision Transformer: pictures uint8 [B,S,S,3] -> tokens [B,N,D]."""
    return ViT(v.layers, blocks, image_size, v.patch_size, remat=remat, positions="learned")


def image_tower(
    image_size: int,
    variant: str,
    overrides: Mapping[str, Any],
    dropout: float,
    dtype: jnp.dtype,
    remat: str,
    attention: str,
) -> ViT:
    """The image tower alone, for models that read its tokens."""
    v = variants.resolve("SigLIP variant", VARIANTS, variant, "overrides", overrides)
    return vit(v, block_config(v, dropout, dtype, attention), image_size, remat)


def published(variant: str, **fields: Any) -> Model:
    """The model of published English weights, at their smallest picture size."""
    size = variants.resolve("SigLIP variant", VARIANTS, variant, "overrides", {}).image_size
    return Model(VOCABULARY, CONTEXT, size, variant, **fields)
