"""CoCa: a contrastive captioner (arXiv 2205.01917), in the two variants of guiding (2307.16686).

    picture --ViT--> tokens --pooler--> [caption queries --pooler-->] one image embedding
    text ----text tower (causal)----> words, [CLS] = text embedding
    words + context ----caption decoder (cross-attention)----> next-token logits

`variant="bottleneck"`: the decoder's context is the image embedding alone, so that captioning is
inverting it (guiding, section 3.1). `variant="attention_pooling"`: the context is the sequence of
caption queries, CoCa's own design. The poolers are in cascade: the contrastive pooler reads the
caption queries; with `caption_queries=0` (bottleneck only) it reads the patches.

Letters: B batch, S side in pixels, L caption positions, T = L - 1, N positions of a step, C context
tokens (1 or Q), E embedding width, D width of the text, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from capjax.models import sizes
from capjax.models.pooler import AttentionalPooler
from capjax.models.text import CaptionDecoder, TextTower
from capjax.models.vit import ViT
from capjax.special_tokens import SpecialTokens

VARIANTS = ("bottleneck", "attention_pooling")
INITIAL_TEMPERATURE = 0.07


class ImageFeatures(NamedTuple):
    """What a picture becomes."""

    embedding: jax.Array  # float32 [B,E], unit length: the contrastive space
    context: jax.Array  # [B,C,E]: what the caption decoder attends to


class DecodeState(NamedTuple):
    """Caches of both text halves between decoding steps."""

    text: Any
    caption: Any


def unit(x: jax.Array) -> jax.Array:
    """x / |x| along the last axis, float32; the zero vector stays zero, with a zero gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-12))


class Model(nn.Module):
    """See the module's docstring. Pictures are uint8 [B,S,S,3], tokens int32 [B,L]."""

    vocab_size: int
    max_length: int
    image_size: int
    size: str = "tiny"
    size_overrides: Mapping[str, int] | None = None
    variant: str = "bottleneck"
    patch_size: int = 8
    stem: str = "patch"
    caption_queries: int = 0
    normalize_bottleneck: bool = False  # not stated in the paper; see its spec
    learned_null: bool = False  # what stands for no picture is a parameter, not zeros
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
        if self.variant not in VARIANTS:
            raise ValueError(f"unknown variant {self.variant!r}: choose one of {VARIANTS}")
        if self.variant == "attention_pooling" and self.caption_queries < 1:
            raise ValueError("variant 'attention_pooling' needs caption_queries >= 1")
        s = sizes.resolve(self.size, self.size_overrides)
        image, text = sizes.block_configs(s, self.dropout, self.dtype, self.attention)
        dtype = image.dtype
        self.image_tower = ViT(
            s.image_layers, image, self.image_size, self.patch_size, self.stem, self.remat
        )
        if self.caption_queries:
            self.caption_pooler = AttentionalPooler(
                self.caption_queries, s.embedding_dim, s.text_heads, dtype, self.attention
            )
        self.contrastive_pooler = AttentionalPooler(
            1, s.embedding_dim, s.text_heads, dtype, self.attention
        )
        self.text_tower = TextTower(
            self.vocab_size, self.max_length, s.unimodal_layers, text, self.remat
        )
        self.text_projection = nn.Dense(s.embedding_dim, use_bias=False, dtype=dtype)
        self.caption_decoder = CaptionDecoder(
            self.vocab_size, s.multimodal_layers, text, self.remat
        )
        if self.learned_null:
            # It begins as the zeros that it takes the place of.
            queries = self.caption_queries if self.variant == "attention_pooling" else 1
            self.null = self.param("null", nn.initializers.zeros, (queries, s.embedding_dim))
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(np.log(1 / INITIAL_TEMPERATURE)), ()
        )

    def encode_image(self, image: jax.Array, train: bool = False) -> ImageFeatures:
        """uint8 [B,S,S,3] -> embedding [B,E] and context [B,C,E]."""
        tokens = self.image_tower(image, train)
        if self.caption_queries:
            tokens = self.caption_pooler(tokens)
        pooled = self.contrastive_pooler(tokens)
        embedding = unit(pooled[:, 0])
        if self.variant == "attention_pooling":
            return ImageFeatures(embedding, tokens)
        if self.normalize_bottleneck:
            pooled = embedding[:, None].astype(pooled.dtype)
        return ImageFeatures(embedding, pooled)

    def null_context(self) -> jax.Array:
        """float32 [C,E]: the context of no picture, of a model with `learned_null`."""
        return self.null

    def encode_text(self, tokens: jax.Array, train: bool = False):
        """int32 [B,L] -> (text embedding float32 [B,E] of unit length, words [B,T,D])."""
        # A position is a word's if something is to be predicted after it: EOS is never read.
        words, cls = self.text_tower(tokens[:, :-1], self.special_tokens.to_write(tokens), train)
        return unit(self.text_projection(cls)), words

    def caption_logits(
        self, words: jax.Array, context: jax.Array, train: bool = False
    ) -> jax.Array:
        """words [B,T,D] of `encode_text`, context [B,C,E] -> float32 [B,T,V] for tokens[:, 1:]."""
        return self.caption_decoder(words, context, train)

    def embed_image(self, image: jax.Array, train: bool = False) -> jax.Array:
        """uint8 [B,S,S,3] -> float32 [B,E], unit length."""
        return self.encode_image(image, train).embedding

    def embed_text(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """int32 [B,L] -> float32 [B,E], unit length."""
        return self.encode_text(tokens, train)[0]

    def start_decoding(self, context: jax.Array, length: int | None = None) -> DecodeState:
        """Caches for captions of at most `length` positions (L - 1) given context [B,C,E]."""
        length = length or self.max_length - 1
        return DecodeState(
            self.text_tower.start(context.shape[0], length),
            self.caption_decoder.start(context, length),
        )

    def decode_step(self, tokens: jax.Array, position: jax.Array, state: DecodeState):
        """int32 [B] at index `position` -> (next-token logits float32 [B,V], state)."""
        states, state = self.read_tokens(tokens[:, None], position, state)
        return self.token_logits(states[:, 0]), state

    def read_tokens(self, tokens: jax.Array, position: jax.Array, state: DecodeState):
        """int32 [B,N] from index `position` on -> (what logits are made of [B,N,D], state)."""
        text, text_state = self.text_tower.step(tokens, position, state.text)
        states, caption_state = self.caption_decoder.step(text, position, state.caption)
        return states, DecodeState(text_state, caption_state)

    def token_logits(self, states: jax.Array) -> jax.Array:
        """[..,D] of `read_tokens` -> next-token logits float32 [..,V]."""
        return self.caption_decoder.write(states)

    def __call__(self, image: jax.Array, tokens: jax.Array, train: bool = False):
        """Everything once: (ImageFeatures, text embedding [B,E], caption logits [B,T,V])."""
        features = self.encode_image(image, train)
        text, words = self.encode_text(tokens, train)
        return features, text, self.caption_logits(words, features.context, train)
