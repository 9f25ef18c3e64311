"""BLIP's image-text matching (Li et al. 2022, arXiv 2201.12086, section 3.1): two scores of a pair.

    itc    picture --ViT--> class token --linear, unit length--> v
           text --BERT--> [CLS] --linear, unit length--> t          score: the cosine v t
    itm    text --the same BERT, with cross-attention to all of the picture's states--> its first
           token --linear--> two logits                             score: softmax, class 1 = match

One set of weights reads the text in both ways: without a picture, the blocks leave their
cross-attention out. itc compares any picture with any text at the price of one product, and is
what every command for dual encoders takes; itm must read each pair anew, and tells more.

BLIP was trained with [ENC] as the first token of a text that is read with a picture; its released
scoring head leaves the tokenizer's own, [CLS]. `match_token` says which.

Letters: B batch, S side in pixels, L tokens of a row, C states of the picture (class token
included), E their width, D width of the text, F width of the common space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from capjax.errors import UserError
from capjax.models import variants
from capjax.models.blip import VARIANTS, TextBlocks, block_config, vit
from capjax.models.coca import INITIAL_TEMPERATURE, ImageFeatures, unit
from capjax.special_tokens import SpecialTokens

MATCH_TOKENS = ("cls", "enc")


class TextEncoder(TextBlocks):
    """BERT whose tokens all see each other, and with a context the picture, too."""

    def __call__(
        self,
        tokens: jax.Array,
        words: jax.Array,
        context: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """tokens int32 [B,L], words bool [B,L] (False: padding), context [B,C,E] -> [B,L,D]."""
        x = self.embed(tokens, jnp.arange(tokens.shape[1]), train)
        return self.stack(x, context, words[:, None, None, :], train)


class Model(nn.Module):
    """Pictures are uint8 [B,S,S,3], tokens int32 [B,L]; what follows a row's end changes nothing.

    embedding_dim: F. match_token: the first token of a text that is matched, "cls" (whatever the
    row begins with) or "enc".
    Raises UserError for rows that are longer than the text's positions, and for "enc" with a
    vocabulary that has no [ENC].
    """

    vocab_size: int
    max_length: int
    image_size: int
    variant: str = "base"
    overrides: Mapping[str, Any] | None = None
    embedding_dim: int = 256
    match_token: str = "cls"
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
        if self.max_length > v.max_positions:
            raise UserError(
                f"rows of {self.max_length} tokens exceed BLIP's max_positions={v.max_positions}: "
                "shorten tokenizer.max_length"
            )
        if self.match_token not in MATCH_TOKENS:
            raise UserError(f"match_token={self.match_token!r} must be 'cls' or 'enc'")
        if self.match_token == "enc" and None in (self.special_tokens.enc, self.special_tokens.bos):
            raise UserError(
                "match_token='enc' needs a vocabulary with the special token [ENC]: name it in "
                "tokenizer.extra_tokens of capjax.data.wordpiece, or choose match_token='cls'"
            )
        dtype = jnp.dtype(self.dtype)
        rest = (self.dropout, dtype, self.attention)
        image, text = (block_config(v, tower, *rest) for tower in ("image", "text"))
        self.image_tower = vit(v, image, self.image_size, self.remat)
        self.text_encoder = TextEncoder(self.vocab_size, v, text, self.remat)
        self.image_projection, self.text_projection, self.match_head = (
            nn.Dense(features, dtype=dtype, kernel_init=v.normal)
            for features in (self.embedding_dim, self.embedding_dim, 2)
        )
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(np.log(1 / INITIAL_TEMPERATURE)), ()
        )

    def encode_image(self, image: jax.Array, train: bool = False) -> ImageFeatures:
        """uint8 [B,S,S,3] -> its embedding, float32 [B,F] of unit length, all states [B,C,E]."""
        states = self.image_tower(image, train)
        return ImageFeatures(unit(self.image_projection(states[:, 0])), states)

    def embed_image(self, image: jax.Array, train: bool = False) -> jax.Array:
        """uint8 [B,S,S,3] -> float32 [B,F] of unit length."""
        return self.encode_image(image, train).embedding

    def embed_text(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """int32 [B,L] -> float32 [B,F] of unit length."""
        words = self.special_tokens.until_end(tokens)
        return unit(self.text_projection(self.text_encoder(tokens, words, None, train)[:, 0]))

    def match(self, context: jax.Array, tokens: jax.Array, train: bool = False) -> jax.Array:
        """States of pictures [B,C,E], texts int32 [B,L] -> logits float32 [B,2]: no match, match.

        Texts are given as the tokenizer writes them, for either `match_token`.
        """
        words = self.special_tokens.until_end(tokens)
        if self.match_token == "enc":
            tokens = tokens.at[:, 0].set(self.special_tokens.enc)
        states = self.text_encoder(tokens, words, context, train)
        return self.match_head(states[:, 0]).astype(jnp.float32)

    def __call__(self, image: jax.Array, tokens: jax.Array, train: bool = False):
        """Everything once: (embeddings [B,F] of pictures and of texts, logits [B,2])."""
        embedding, context = self.encode_image(image, train)
        return embedding, self.embed_text(tokens, train), self.match(context, tokens, train)
