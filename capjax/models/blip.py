"""BLIP's captioner (Li et al. 2022, arXiv 2201.12086): a ViT, and a BERT that writes.

    picture --ViT (class token)--> states of all tokens = the context
    words --embedding, LayerNorm--> blocks of causal self-attention, cross-attention to the
        context and an MLP, each followed by its LayerNorm --> next-token logits

The decoder attends to the picture in every block, so that what `encode_text` gives is the embedded
words alone. Captions begin with [DEC], end with [SEP] and are padded with [PAD]. A context of
zeros is what guidance takes for no picture (arXiv 2307.16686); the published weights were not
trained with it.

Letters: B batch, S side in pixels, L tokens of a row, T = L - 1 positions, N positions of a step, C
tokens of the picture (class token included), E their width, D width of the text, V vocabulary.
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
from capjax.models.attention import causal_mask
from capjax.models.coca import ImageFeatures, unit
from capjax.models.pixels import CLIP
from capjax.models.transformer import BlockConfig, BlockInit, Stack, activation_of
from capjax.models.vit import ViT
from capjax.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes; the defaults of the text are those of the published models."""

    image_layers: int
    image_width: int
    image_heads: int
    image_mlp_dim: int
    patch_size: int = 16
    image_epsilon: float = 1e-5
    image_activation: str = "gelu"
    stem: str = "patch"  # "conv" learns from fewer pictures, see `vit.ConvStem`
    text_layers: int = 12
    text_width: int = 768
    text_heads: int = 12
    text_mlp_dim: int = 3072
    text_epsilon: float = 1e-12
    text_activation: str = "gelu"  # of the blocks and of the head
    max_positions: int = 512
    tied: bool = True  # one embedding for reading and writing
    init_std: float = 0.02  # of first kernels; a narrow model learns sooner from 1 / sqrt(width)

    @property
    def normal(self) -> nn.initializers.Initializer:
        return nn.initializers.normal(self.init_std)


VARIANTS = {
    "tiny": Variant(2, 64, 4, 256, 8, text_layers=2, text_width=64, text_heads=4, text_mlp_dim=256),
    "base": Variant(12, 768, 12, 3072),
    "large": Variant(24, 1024, 16, 4096),
}


def block_config(
    v: Variant, tower: str, dropout: float, dtype: jnp.dtype, attention: str
) -> BlockConfig:
    """The blocks of a `tower`, "image" or "text"."""
    width, heads, mlp_dim, activation, epsilon = (
        getattr(v, f"{tower}_{field}")
        for field in ("width", "heads", "mlp_dim", "activation", "epsilon")
    )
    return BlockConfig(
        width,
        heads,
        mlp_dim,
        dropout,
        dtype,
        attention,
        activation_of(activation),
        epsilon,
        post_norm=tower == "text",
        init=BlockInit(*[v.normal] * 4),
    )


def vit(v: Variant, blocks: BlockConfig, image_size: int, remat: str) -> ViT:
    """BLIP's Vision Transformer: pictures uint8 [B,S,S,3] -> states [B,C,E], the class's first."""
    return ViT(
        v.image_layers,
        blocks,
        image_size,
        v.patch_size,
        stem=v.stem,
        remat=remat,
        pixels=CLIP,
        positions="learned",
        class_token=True,
    )


class TextBlocks(nn.Module):
    """BERT without segments and with cross-attention: what BLIP's readers and writers share."""

    vocab_size: int
    variant: Variant
    config: BlockConfig
    remat: str = "none"

    def setup(self):
        v, c = self.variant, self.config

        def table(rows: int) -> nn.Embed:
            return nn.Embed(rows, c.width, dtype=c.dtype, embedding_init=v.normal)

        self.embedding = table(self.vocab_size)
        self.positions = table(v.max_positions)
        self.norm = c.make_norm()
        self.drop = nn.Dropout(c.dropout)
        self.stack = Stack(v.text_layers, c, cross=True, remat=self.remat)

    def embed(self, tokens: jax.Array, at: jax.Array, train: bool = False) -> jax.Array:
        """tokens int32 [B,N] at the positions int32 [N] -> [B,N,D]."""
        x = self.norm(self.embedding(tokens) + self.positions(at))
        return self.drop(x, deterministic=not train)


class TextDecoder(TextBlocks):
    """BERT with a causal mask and cross-attention, and the head that predicts words."""

    def setup(self):
        super().setup()
        v, c = self.variant, self.config
        self.head_in = nn.Dense(c.width, dtype=c.dtype, kernel_init=v.normal)
        self.head_norm = c.make_norm()
        if v.tied:
            self.head_bias = self.param("head_bias", nn.initializers.zeros, (self.vocab_size,))
        else:
            self.head = nn.Dense(self.vocab_size, dtype=c.dtype, kernel_init=v.normal)

    def __call__(self, words: jax.Array, context: jax.Array, train: bool = False) -> jax.Array:
        """Embedded words [B,T,D], context [B,C,E] -> float32 [B,T,V]."""
        return self.write(self.stack(words, context, causal_mask(words.shape[1]), train))

    def step(self, tokens: jax.Array, position: jax.Array, caches: list[Any]):
        """tokens int32 [B,N] from index `position` on -> (states [B,N,D], caches)."""
        at = position + jnp.arange(tokens.shape[1])
        return self.stack.step(self.embed(tokens, at), position, caches)

    def write(self, x: jax.Array) -> jax.Array:
        """States [..,D] -> next-token logits float32 [..,V]."""
        x = self.head_norm(self.config.activation(self.head_in(x)))
        if self.variant.tied:
            return self.embedding.attend(x).astype(jnp.float32) + self.head_bias
        return self.head(x).astype(jnp.float32)


class Model(nn.Module):
    """Pictures are uint8 [B,S,S,3], tokens int32 [B,L].

    Raises UserError for rows that are longer than the decoder's positions.
    """

    vocab_size: int
    max_length: int
    image_size: int
    variant: str = "base"
    overrides: Mapping[str, Any] | None = None
    special_tokens: SpecialTokens = SpecialTokens()
    dropout: float = 0.0
    dtype: str = "float32"  # of the computation; parameters are float32
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self):
        # Frozen, because a model is hashed as a static argument of jitted functions.
        object.__setattr__(self, "overrides", FrozenDict(self.overrides or {}))
        super().__post_init__()

    def setup(self):
        v = variants.resolve("BLIP variant", VARIANTS, self.variant, "overrides", self.overrides)
        if self.max_length - 1 > v.max_positions:
            raise UserError(
                f"rows of {self.max_length} tokens exceed BLIP's max_positions={v.max_positions}: "
                "shorten tokenizer.max_length"
            )
        rest = (self.dropout, jnp.dtype(self.dtype), self.attention)
        image, text = (block_config(v, tower, *rest) for tower in ("image", "text"))
        self.image_tower = vit(v, image, self.image_size, self.remat)
        self.text_decoder = TextDecoder(self.vocab_size, v, text, self.remat)

    def encode_image(self, image: jax.Array, train: bool = False) -> ImageFeatures:
        """uint8 [B,S,S,3] -> (class token's state of unit length [B,E], all states [B,C,E])."""
        states = self.image_tower(image, train)
        return ImageFeatures(unit(states[:, 0]), states)

    def encode_text(self, tokens: jax.Array, train: bool = False):
        """int32 [B,L] -> (None: a caption has no embedding here, words [B,T,D])."""
        read = tokens[:, :-1]
        return None, self.text_decoder.embed(read, jnp.arange(read.shape[1]), train)

    def caption_logits(
        self, words: jax.Array, context: jax.Array, train: bool = False
    ) -> jax.Array:
        """words [B,T,D] of `encode_text`, context [B,C,E] -> float32 [B,T,V] for tokens[:, 1:]."""
        return self.text_decoder(words, context, train)

    def start_decoding(self, context: jax.Array, length: int | None = None) -> list[Any]:
        """Caches for captions of at most `length` positions (L - 1) given context [B,C,E]."""
        length = length or self.max_length - 1
        return self.text_decoder.stack.start(context.shape[0], length, context)

    def decode_step(self, tokens: jax.Array, position: jax.Array, state: list[Any]):
        """int32 [B] at index `position` -> (next-token logits float32 [B,V], state)."""
        states, state = self.read_tokens(tokens[:, None], position, state)
        return self.token_logits(states[:, 0]), state

    def read_tokens(self, tokens: jax.Array, position: jax.Array, state: list[Any]):
        """int32 [B,N] from index `position` on -> (what logits are made of [B,N,D], state)."""
        return self.text_decoder.step(tokens, position, state)

    def token_logits(self, states: jax.Array) -> jax.Array:
        """[..,D] of `read_tokens` -> next-token logits float32 [..,V]."""
        return self.text_decoder.write(states)

    def __call__(self, image: jax.Array, tokens: jax.Array, train: bool = False):
        """Everything once: (ImageFeatures, next-token logits [B,T,V])."""
        features = self.encode_image(image, train)
        _, words = self.encode_text(tokens, train)
        return features, self.caption_logits(words, features.context, train)
