"""Text: the causal tower that reads captions, and the half that writes them given a context.

Letters: B batch, T text positions, N positions of a step, D width, V vocabulary, C context tokens,
E embedding width.
Tokens are BOS w1..wn EOS PAD..., int32 [B,L]; what is read is tokens[:, :-1] (T = L - 1) and what
is predicted is tokens[:, 1:].
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.models.attention import causal_mask
from capjax.models.transformer import BlockConfig, Stack


class TextTower(nn.Module):
    """Causal transformer over tokens, without cross-attention (CoCa's unimodal half).

    A learned [CLS] follows the text; no word sees it, it sees all words, and its output is the
    text's embedding (CoCa, section 3.2).
    """

    vocab_size: int
    max_length: int
    layers: int
    config: BlockConfig
    remat: str = "none"

    def setup(self):
        c = self.config
        normal = nn.initializers.normal(0.02)
        self.embedding = nn.Embed(self.vocab_size, c.width, dtype=c.dtype, embedding_init=normal)
        self.positions = self.param("positions", normal, (self.max_length, c.width))
        self.cls = self.param("cls", normal, (1, c.width))
        self.stack = Stack(self.layers, c, remat=self.remat)
        self.drop = nn.Dropout(c.dropout)

    def __call__(self, tokens: jax.Array, words: jax.Array, train: bool = False):
        """tokens int32 [B,T], words bool [B,T] (False: padding) -> ([B,T,D], [CLS] [B,D])."""
        batch, length = tokens.shape
        if length > self.max_length:
            raise ValueError(f"{length} text positions exceed max_length={self.max_length}")
        x = self.embedding(tokens) + self.positions[:length].astype(self.config.dtype)
        cls = jnp.broadcast_to(self.cls.astype(self.config.dtype), (batch, 1, self.config.width))
        x = self.drop(jnp.concatenate([x, cls], 1), deterministic=not train)
        seen = jnp.concatenate([words, jnp.ones((batch, 1), bool)], 1)
        # Padding is hidden from [CLS] only: words precede their padding, so causality hides it.
        last = jnp.arange(length + 1) == length
        mask = causal_mask(length + 1) & (seen[:, None, None, :] | ~last[None, None, :, None])
        x = self.stack(x, mask=mask, train=train)
        return x[:, :-1], x[:, -1]

    def start(self, batch: int, length: int):
        """Caches for decoding at most `length` positions."""
        return self.stack.start(batch, length)

    def step(self, tokens: jax.Array, position: jax.Array, caches):
        """tokens int32 [B,N] from index `position` on -> ([B,N,D], caches)."""
        place = jax.lax.dynamic_slice_in_dim(self.positions, position, tokens.shape[1])
        x = self.embedding(tokens) + place.astype(self.config.dtype)
        return self.stack.step(x, position, caches)


class CaptionDecoder(nn.Module):
    """Causal transformer with cross-attention to the picture (CoCa's multimodal half)."""

    vocab_size: int
    layers: int
    config: BlockConfig
    remat: str = "none"

    def setup(self):
        self.stack = Stack(self.layers, self.config, cross=True, remat=self.remat)
        self.head = nn.Dense(self.vocab_size, dtype=self.config.dtype)

    def __call__(self, text: jax.Array, context: jax.Array, train: bool = False) -> jax.Array:
        """text [B,T,D] of the text tower, context [B,C,E] -> next-token logits float32 [B,T,V]."""
        return self.write(self.stack(text, context, causal_mask(text.shape[1]), train))

    def start(self, context: jax.Array, length: int):
        """Caches with the context's keys and values, projected once."""
        return self.stack.start(context.shape[0], length, context)

    def step(self, text: jax.Array, position: jax.Array, caches):
        """text [B,N,D] from index `position` on -> (states [B,N,D], caches)."""
        return self.stack.step(text, position, caches)

    def write(self, x: jax.Array) -> jax.Array:
        """States [..,D] -> next-token logits float32 [..,V]."""
        return self.head(x).astype(jnp.float32)
