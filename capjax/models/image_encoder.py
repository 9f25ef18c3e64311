"""A Vision Transformer as an image encoder of its own (Dosovitskiy et al. 2021, arXiv 2010.11929).

    picture --patches, class token, learned positions, blocks, LayerNorm--> states of all tokens
    class token's state --(linear layer)--> logits of classes, where the encoder has a head

Published ones are DeiT's (Touvron et al. 2021, arXiv 2012.12877) and timm's, whose LayerNorms have
an epsilon of 1e-6, and Hugging Face's with 1e-12. What a picture's bytes become is the variant's
affair, too: DeiT's pixels are normalised by ImageNet's statistics, ViT's go to [-1, 1].

Letters: B batch, S side in pixels, N tokens (class token included), D width, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from capjax.errors import UserError
from capjax.models import variants
from capjax.models.coca import ImageFeatures, unit
from capjax.models.pixels import CLIP, HALF, IMAGENET
from capjax.models.transformer import BlockConfig, BlockInit, activation_of
from capjax.models.vit import ViT

PIXELS = {"half": HALF, "imagenet": IMAGENET, "clip": CLIP}


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes and options; the defaults are DeiT's without its head."""

    layers: int
    width: int
    heads: int
    mlp_dim: int
    patch_size: int = 16
    epsilon: float = 1e-6
    activation: str = "gelu"
    pixels: str = "imagenet"  # or "half", or "clip"
    classes: int = 0  # 0: no head


VARIANTS = {
    "ViT-Ti/16": Variant(12, 192, 3, 768),
    "ViT-S/16": Variant(12, 384, 6, 1536),
    "ViT-S/32": Variant(12, 384, 6, 1536, 32),
    "ViT-B/16": Variant(12, 768, 12, 3072),
    "ViT-B/32": Variant(12, 768, 12, 3072, 32),
    "ViT-L/16": Variant(24, 1024, 16, 4096),
    "ViT-L/32": Variant(24, 1024, 16, 4096, 32),
    "ViT-H/14": Variant(32, 1280, 16, 5120, 14),
}


class Model(nn.Module):
    """Pictures are uint8 [B,S,S,3]; raises UserError for unknown pixels and a head it lacks."""

    image_size: int
    variant: str = "ViT-B/16"
    overrides: Mapping[str, Any] | None = None
    dropout: float = 0.0
    dtype: str = "float32"  # of the computation; parameters are float32
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self):
        # Frozen, because a model is hashed as a static argument of jitted functions.
        object.__setattr__(self, "overrides", FrozenDict(self.overrides or {}))
        super().__post_init__()

    def setup(self):
        v = variants.resolve("ViT variant", VARIANTS, self.variant, "overrides", self.overrides)
        dtype = jnp.dtype(self.dtype)
        self.image_tower = image_tower(
            self.image_size,
            self.variant,
            self.overrides,
            self.dropout,
            dtype,
            self.remat,
            self.attention,
        )
        # Zeros at the start, as in the paper's fine-tuning (appendix D).
        zeros = nn.initializers.zeros
        self.head = nn.Dense(v.classes, dtype=dtype, kernel_init=zeros) if v.classes else None

    def inputs(self) -> tuple[jax.Array, ...]:
        """Arguments of the call for a batch of one, from which parameters are made."""
        return (jnp.zeros((1, self.image_size, self.image_size, 3), jnp.uint8),)

    def encode_image(self, image: jax.Array, train: bool = False) -> ImageFeatures:
        """uint8 [B,S,S,3] -> (class token's state of unit length [B,D], all states [B,N,D])."""
        states = self.image_tower(image, train)
        return ImageFeatures(unit(states[:, 0]), states)

    def embed_image(self, image: jax.Array, train: bool = False) -> jax.Array:
        """uint8 [B,S,S,3] -> float32 [B,D], unit length."""
        return self.encode_image(image, train).embedding

    def classify(self, image: jax.Array, train: bool = False) -> jax.Array:
        """uint8 [B,S,S,3] -> logits float32 [B,K]."""
        if self.head is None:
            raise UserError("this image encoder has no head: set the number of its classes")
        return self._logits(self.image_tower(image, train))

    def _logits(self, states: jax.Array) -> jax.Array:
        return self.head(states[:, 0]).astype(jnp.float32)

    def __call__(self, image: jax.Array, train: bool = False):
        """Everything once: (ImageFeatures, logits [B,K], None without a head)."""
        features = self.encode_image(image, train)
        return features, None if self.head is None else self._logits(features.context)


def image_tower(
    image_size: int,
    variant: str,
    overrides: Mapping[str, Any],
    dropout: float,
    dtype: jnp.dtype,
    remat: str,
    attention: str,
) -> ViT:
    """The tower alone, for models that read its tokens: [B,S,S,3] -> [B,N,D]."""
    v = variants.resolve("ViT variant", VARIANTS, variant, "overrides", overrides)
    if v.pixels not in PIXELS:
        raise UserError(f"pixels={v.pixels!r} must be one of {', '.join(PIXELS)}")
    config = BlockConfig(
        v.width,
        v.heads,
        v.mlp_dim,
        dropout,
        dtype,
        attention,
        activation_of(v.activation),
        v.epsilon,
        init=BlockInit(*[nn.initializers.normal(0.02)] * 4),
    )
    return ViT(
        v.layers,
        config,
        image_size,
        v.patch_size,
        remat=remat,
        pixels=PIXELS[v.pixels],
        positions="learned",
        class_token=True,
    )
