"""OpenCLIP's CoCa (github mlfoundations/open_clip): CoCa (arXiv 2205.01917) as its weights are.

    picture --ViT (class token)--> states --256 learned queries--> the first one --> image embedding
                                                                   the others    --> the context
    text ----causal transformer--> words, [CLS] behind the row = text embedding
    words + context --self-attention blocks and cross-attention blocks in turns--> next-token logits

It differs from the paper's, `capjax.models.coca`: one pooler gives both the embedding and the
context, each cross-attention is a block with an MLP of its own, and the text tower reads whole
rows. A row is SOT words EOT PAD..; the published weights take rows of 76 tokens, and [CLS] follows
as the 77th position. What the text tower hides is one place off: see `open_clip_coca_text`.

Letters: B batch, S side in pixels, N states of a picture, Q queries, E embedding width (and that of
the context), L tokens of a row, T = L - 1 positions that are decoded, D text width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from capjax.models import variants
from capjax.models.attention import Attention
from capjax.models.coca import INITIAL_TEMPERATURE, ImageFeatures, unit
from capjax.models.open_clip_coca_text import CaptionDecoder, TextTower
from capjax.models.pixels import CLIP
from capjax.models.transformer import BlockConfig, BlockInit, activation_of
from capjax.models.vit import ViT
from capjax.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes; MLPs are four times as wide as what they read."""

    image_size: int  # that it was trained at
    patch_size: int
    image_layers: int
    image_width: int
    image_heads: int
    text_width: int  # of both halves
    text_heads: int
    decoder_heads: int
    embedding_dim: int
    text_layers: int = 12
    decoder_layers: int = 12  # each a block of self-attention and one of cross-attention
    queries: int = 256
    pooler_heads: int = 8
    activation: str = "gelu"


VARIANTS = {
    "coca_ViT-B-32": Variant(224, 32, 12, 768, 12, 512, 8, 8, 512),
    "coca_ViT-L-14": Variant(224, 14, 24, 1024, 16, 768, 12, 12, 768),
}


class DecodeState(NamedTuple):
    """What is kept between decoding steps."""

    text: Any  # the text tower's caches
    caption: Any  # the caption decoder's
    seen: jax.Array  # bool [B,T]: which positions of the text tower may be seen


class Pooler(nn.Module):
    """[B,N,D] -> [B,Q,E]: learned queries, normalised as well, read the states."""

    queries: int
    features: int
    heads: int
    config: BlockConfig  # of what it reads

    @nn.compact
    def __call__(self, states: jax.Array) -> jax.Array:
        c = self.config

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=c.epsilon, dtype=c.dtype, name=name)

        queries = self.param("queries", nn.initializers.normal(1.0), (self.queries, self.features))
        x = norm("norm_queries")(queries.astype(c.dtype))
        x = jnp.broadcast_to(x, (len(states), *x.shape))
        attend = Attention(self.features, self.heads, c.dtype, c.attention, name="attention")
        return norm("norm")(attend(x, attend.project(states)))


class Model(nn.Module):
    """Pictures are uint8 [B,S,S,3], tokens int32 [B,L].

    Raises UserError for rows of more than `max_length` tokens, and for unknown variants.
    """

    vocab_size: int
    max_length: int
    image_size: int
    variant: str = "coca_ViT-B-32"
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
        v = variants.resolve("CoCa variant", VARIANTS, self.variant, "overrides", self.overrides)
        image = self._blocks(v.image_width, v.image_heads, v.image_layers, v.activation)
        self.image_tower = ViT(
            v.image_layers,
            image,
            self.image_size,
            v.patch_size,
            remat=self.remat,
            pixels=CLIP,
            positions="learned",
            patch_bias=False,
            class_token=True,
            pre_norm=True,
        )
        self.image_pooler = Pooler(v.queries, v.embedding_dim, v.pooler_heads, image)
        self.image_projection = self._projection(v.image_width, v.embedding_dim)
        self.text_tower = TextTower(
            self.vocab_size,
            self.max_length,
            v.text_layers,
            self._blocks(v.text_width, v.text_heads, v.text_layers, v.activation),
            self.special_tokens.pad,
            self.remat,
        )
        self.text_projection = self._projection(v.text_width, v.embedding_dim)
        self.caption_decoder = CaptionDecoder(
            self.vocab_size,
            v.decoder_layers,
            self._blocks(v.text_width, v.decoder_heads, v.decoder_layers, v.activation),
            self.remat,
        )
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(np.log(1 / INITIAL_TEMPERATURE)), ()
        )

    def _blocks(self, width: int, heads: int, layers: int, activation: str) -> BlockConfig:
        normal = nn.initializers.normal
        into_residual = normal(width**-0.5 * (2 * layers) ** -0.5)
        return BlockConfig(
            width,
            heads,
            4 * width,
            self.dropout,
            jnp.dtype(self.dtype),
            self.attention,
            activation_of(activation),
            epsilon=1e-5,
            init=BlockInit(
                normal(width**-0.5), into_residual, normal((2 * width) ** -0.5), into_residual
            ),
        )

    def _projection(self, width: int, features: int) -> nn.Dense:
        return nn.Dense(
            features,
            use_bias=False,
            dtype=jnp.dtype(self.dtype),
            kernel_init=nn.initializers.normal(width**-0.5),
        )

    def encode_image(self, image: jax.Array, train: bool = False) -> ImageFeatures:
        """uint8 [B,S,S,3] -> embedding float32 [B,E], unit length, and context [B,Q-1,E]."""
        pooled = self.image_pooler(self.image_tower(image, train))
        return ImageFeatures(unit(self.image_projection(pooled[:, 0])), pooled[:, 1:])

    def encode_text(self, tokens: jax.Array, train: bool = False):
        """int32 [B,L] -> (text embedding float32 [B,E] of unit length, words [B,T,D])."""
        words, cls = self.text_tower(tokens, train)
        return unit(self.text_projection(cls)), words[:, :-1]

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
        text, seen = self.text_tower.start(len(context), length)
        return DecodeState(text, self.caption_decoder.start(context, length), seen)

    def decode_step(self, tokens: jax.Array, position: jax.Array, state: DecodeState):
        """int32 [B] at index `position` -> (next-token logits float32 [B,V], state)."""
        states, state = self.read_tokens(tokens[:, None], position, state)
        return self.token_logits(states[:, 0]), state

    def read_tokens(self, tokens: jax.Array, position: jax.Array, state: DecodeState):
        """int32 [B,N] from index `position` on -> (what logits are made of [B,N,D], state)."""
        words, text, seen = self.text_tower.step(tokens, position, state.text, state.seen)
        states, caption = self.caption_decoder.step(words, position, state.caption)
        return states, DecodeState(text, caption, seen)

    def token_logits(self, states: jax.Array) -> jax.Array:
        """[..,D] of `read_tokens` -> next-token logits float32 [..,V]."""
        return self.caption_decoder.write(states)

    def __call__(self, image: jax.Array, tokens: jax.Array, train: bool = False):
        """Everything once: (ImageFeatures, text embedding [B,E], caption logits [B,T,V])."""
        features = self.encode_image(image, train)
        text, words = self.encode_text(tokens, train)
        return features, text, self.caption_logits(words, features.context, train)
