"""CLIP (arXiv 2103.00020): a picture and a text, each one vector of a common space.

    picture --ViT (class token) or modified ResNet (attention pooling)--> projection --> unit vector
    text ----causal transformer, its state at END-OF-TEXT--> projection --> unit vector

The nine published variants by name; activation, pixel statistics and initialisation are theirs.
`overrides` changes fields of `Variant`, for small models and for those with another activation.

Letters: B batch, S side in pixels, L tokens, D width of the text tower, E embedding width.
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
from capjax.models.clip_resnet import ModifiedResNet
from capjax.models.coca import INITIAL_TEMPERATURE, unit
from capjax.models.pixels import CLIP
from capjax.models.text_encoder import TextEncoder
from capjax.models.transformer import BlockConfig, BlockInit, activation_of
from capjax.models.vit import ViT
from capjax.special_tokens import SpecialTokens

# Of the published weights. END-OF-TEXT is the highest id of all.
VOCABULARY, CONTEXT = 49_408, 77
SPECIAL_TOKENS = SpecialTokens(pad=0, bos=49_406, eos=49_407, never_written=(49_406,))


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes. A ResNet has four `image_layers`, the width of its stem, and no patches."""

    image_size: int  # that it was trained at
    image_layers: int | tuple[int, int, int, int]
    image_width: int
    image_heads: int
    patch_size: int | None
    text_width: int
    text_heads: int
    embedding_dim: int
    text_layers: int = 12
    activation: str = "quick_gelu"
    stem: str = "patch"  # of a ViT; "conv" learns from fewer pictures, see `vit.ConvStem`


VARIANTS = {
    "RN50": Variant(224, (3, 4, 6, 3), 64, 32, None, 512, 8, 1024),
    "RN101": Variant(224, (3, 4, 23, 3), 64, 32, None, 512, 8, 512),
    "RN50x4": Variant(288, (4, 6, 10, 6), 80, 40, None, 640, 10, 640),
    "RN50x16": Variant(384, (6, 8, 18, 8), 96, 48, None, 768, 12, 768),
    "RN50x64": Variant(448, (3, 15, 36, 10), 128, 64, None, 1024, 16, 1024),
    "ViT-B/32": Variant(224, 12, 768, 12, 32, 512, 8, 512),
    "ViT-B/16": Variant(224, 12, 768, 12, 16, 512, 8, 512),
    "ViT-L/14": Variant(224, 24, 1024, 16, 14, 768, 12, 768),
    "ViT-L/14@336": Variant(336, 24, 1024, 16, 14, 768, 12, 768),
}


class Model(nn.Module):
    """Pictures are uint8 [B,S,S,3], tokens int32 [B,L]; embeddings float32 [B,E], unit length.

    A text's vector is read at its first EOS. CLIP's own code looks for the highest id, which is
    the same in its vocabulary and in no other.

    prefixes: the kinds of data that texts are told apart by (`text_encoder`); `test_prefix` is the
      one that `embed_text` takes, outside training, if it is given none.
    """

    vocab_size: int
    max_length: int
    image_size: int
    variant: str = "ViT-B/32"
    overrides: Mapping[str, Any] | None = None
    special_tokens: SpecialTokens = SpecialTokens()
    prefixes: tuple[str, ...] = ()
    test_prefix: str = ""
    dropout: float = 0.0
    dtype: str = "float32"  # of the computation; parameters are float32
    remat: str = "none"  # of transformer blocks; a ResNet keeps its activations
    attention: str = "xla"

    def __post_init__(self):
        # Frozen, because a model is hashed as a static argument of jitted functions.
        object.__setattr__(self, "overrides", FrozenDict(self.overrides or {}))
        super().__post_init__()

    def setup(self):
        v = variants.resolve("CLIP variant", VARIANTS, self.variant, "overrides", self.overrides)
        if (self.prefixes or self.test_prefix) and self.test_prefix not in self.prefixes:
            raise UserError(
                f"test_prefix={self.test_prefix!r} is not among prefixes={self.prefixes}: name the "
                "one that evaluation uses"
            )
        self.image_tower = self._resnet(v) if v.patch_size is None else self._vit(v)
        if v.patch_size is not None:
            self.image_projection = self._projection(v.image_width, v.embedding_dim)
        self.text_tower = TextEncoder(
            self.vocab_size,
            self.max_length,
            v.text_layers,
            self._blocks(v.text_width, v.text_heads, v.text_layers, v.activation),
            causal=True,
            token_std=0.02,
            position_std=0.01,
            prefixes=self.prefixes,
            remat=self.remat,
        )
        self.text_projection = self._projection(v.text_width, v.embedding_dim)
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(np.log(1 / INITIAL_TEMPERATURE)), ()
        )

    def _vit(self, v: Variant) -> ViT:
        blocks = self._blocks(v.image_width, v.image_heads, v.image_layers, v.activation)
        return vit(v, blocks, self.image_size, self.remat)

    def _resnet(self, v: Variant) -> ModifiedResNet:
        return ModifiedResNet(
            jnp.dtype(self.dtype),
            layers=v.image_layers,
            width=v.image_width,
            heads=v.image_heads,
            embedding_dim=v.embedding_dim,
            image_size=self.image_size,
            attention=self.attention,
        )

    def _blocks(self, width: int, heads: int, layers: int, activation: str) -> BlockConfig:
        rest = (self.dropout, jnp.dtype(self.dtype), self.attention)
        return block_config(width, heads, layers, activation, *rest)

    def _projection(self, width: int, features: int) -> nn.Dense:
        return nn.Dense(
            features,
            use_bias=False,
            dtype=jnp.dtype(self.dtype),
            kernel_init=nn.initializers.normal(width**-0.5),
        )

    def embed_image(self, image: jax.Array, train: bool = False) -> jax.Array:
        """uint8 [B,S,S,3] -> float32 [B,E]."""
        x = self.image_tower(image, train)
        return unit(self.image_projection(x[:, 0]) if x.ndim == 3 else x)

    def embed_text(
        self, tokens: jax.Array, train: bool = False, prefix: str | jax.Array | None = None
    ) -> jax.Array:
        """int32 [B,L] -> float32 [B,E]; `prefix`: a name, or int32 [B]."""
        if prefix is None and not train:
            prefix = self.test_prefix or None
        x = self.text_tower(tokens, train, prefix)
        # The last position if there is no EOS: a caption that fills the row.
        end = self.special_tokens.until_end(tokens).sum(-1) - 1
        return unit(self.text_projection(jnp.take_along_axis(x, end[:, None, None], 1)[:, 0]))

    def __call__(self, image: jax.Array, tokens: jax.Array, train: bool = False, prefix=None):
        """Both embeddings of a batch of pairs: ([B,E], [B,E])."""
        return self.embed_image(image, train), self.embed_text(tokens, train, prefix)


def block_config(
    width: int,
    heads: int,
    layers: int,
    activation: str,
    dropout: float,
    dtype: jnp.dtype,
    attention: str,
) -> BlockConfig:
    """The blocks of a tower of CLIP."""
    normal = nn.initializers.normal
    into_residual = normal(width**-0.5 * (2 * layers) ** -0.5)
    return BlockConfig(
        width,
        heads,
        4 * width,
        dropout,
        dtype,
        attention,
        activation_of(activation),
        epsilon=1e-5,
        init=BlockInit(
            normal(width**-0.5), into_residual, normal((2 * width) ** -0.5), into_residual
        ),
    )


def vit(v: Variant, blocks: BlockConfig, image_size: int, remat: str) -> ViT:
    """CLIP's Vision Transformer: pictures uint8 [B,S,S,3] -> tokens [B,N,D], the class's first."""
    return ViT(
        v.image_layers,
        blocks,
        image_size,
        v.patch_size,
        stem=v.stem,
        remat=remat,
        pixels=CLIP,
        positions="learned",
        patch_bias=False,
        class_token=True,
        pre_norm=True,
    )


def image_tower(
    image_size: int,
    variant: str,
    overrides: Mapping[str, Any],
    dropout: float,
    dtype: jnp.dtype,
    remat: str,
    attention: str,
) -> ViT:
    """The image tower alone, for models that read its tokens; UserError for a ResNet."""
    v = variants.resolve("CLIP variant", VARIANTS, variant, "overrides", overrides)
    if v.patch_size is None:
        raise UserError(f"{variant} gives one vector and no tokens to read: choose a ViT")
    blocks = (v.image_width, v.image_heads, v.image_layers, v.activation)
    config = block_config(*blocks, dropout, dtype, attention)
    return vit(v, config, image_size, remat)


def published(variant: str, **fields: Any) -> Model:
    """The model of the published weights: CLIP's vocabulary and context, the variant's size."""
    size = variants.resolve("CLIP variant", VARIANTS, variant, "overrides", {}).image_size
    fields = {"special_tokens": SPECIAL_TOKENS} | fields
    return Model(VOCABULARY, CONTEXT, size, variant, **fields)
