"""The text halves of OpenCLIP's CoCa: the tower that reads rows, and the decoder that writes.

The tower differs from `capjax.models.text` in that [CLS] alone is normalised, and in what it hides;
the decoder in that each cross-attention is a block with an MLP and with a norm of the context.

Letters: B batch, L tokens of a row, T positions that are decoded, N positions of a step, D width, C
context tokens, E their width, V vocabulary.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.errors import UserError
from capjax.models.attention import Kept, KeyValue, causal_mask, keep
from capjax.models.transformer import REMAT_POLICIES, BlockConfig, Stack

NEVER = -1e9  # added to a score that must not count


class BareStack(Stack):
    """Blocks without the norm that follows them; it is there as `norm`."""

    def _last(self, x: jax.Array) -> jax.Array:
        return x


class TextTower(nn.Module):
    """Causal transformer over a row of tokens, and [CLS] behind it.

    The norm is [CLS]'s alone. Padding is hidden, but every key by the token before its own: the
    weights were trained with this mask. So the first padding is seen, and [CLS] does not see itself
    where the row ends with padding. What follows a word that has the padding's id ("!" in CLIP's
    vocabulary) is hidden as well, from words too; that is how OpenCLIP 3 reads it.
    """

    vocab_size: int
    max_length: int
    layers: int
    config: BlockConfig
    pad: int
    remat: str = "none"

    def setup(self):
        c = self.config
        normal = nn.initializers.normal
        self.embedding = nn.Embed(
            self.vocab_size, c.width, dtype=c.dtype, embedding_init=normal(0.02)
        )
        self.positions = self.param("positions", normal(0.01), (self.max_length + 1, c.width))
        self.cls = self.param("cls", normal(0.01), (1, c.width))
        self.stack = BareStack(self.layers, c, remat=self.remat)
        self.drop = nn.Dropout(c.dropout)

    def __call__(self, tokens: jax.Array, train: bool = False):
        """tokens int32 [B,L] -> (words [B,L,D], [CLS] [B,D])."""
        batch, length = tokens.shape
        if length > self.max_length:
            raise UserError(
                f"texts of {length} tokens exceed the model's max_length={self.max_length}: set "
                "config.tokenizer.max_length to it"
            )
        c = self.config
        cls = jnp.broadcast_to(self.cls.astype(c.dtype), (batch, 1, c.width))
        x = jnp.concatenate([self.embedding(tokens), cls], 1)
        x = self.drop(x + self.positions[: length + 1].astype(c.dtype), deterministic=not train)
        seen = jnp.concatenate([jnp.ones((batch, 1), bool), tokens != self.pad], 1)
        x = self.stack(x, mask=causal_mask(length + 1) & seen[:, None, None], train=train)
        return x[:, :-1], self.stack.norm(x[:, -1])

    def start(self, batch: int, length: int):
        """Empty caches for `length` positions, and which of these may be seen, bool [B,length]."""
        return self.stack.start(batch, length), jnp.ones((batch, length), bool)

    def step(self, tokens: jax.Array, position: jax.Array, caches, seen: jax.Array):
        """tokens int32 [B,N] from index `position` on -> ([B,N,D], caches, seen)."""
        count = tokens.shape[1]
        place = jax.lax.dynamic_slice_in_dim(self.positions, position, count)
        x = self.embedding(tokens) + place.astype(self.config.dtype)
        behind = position + 1 + jnp.arange(count)
        seen = seen.at[:, behind].set(tokens != self.pad, mode="drop")
        bias = jnp.where(seen, 0.0, NEVER)[:, None, None].astype(x.dtype)
        x, caches = self.stack.step(x, position, caches, bias)
        return x, caches, seen


class CrossBlock(nn.Module):
    """x + cross-attention, + MLP, each on a norm of its input; the context has its own norm."""

    config: BlockConfig

    def setup(self):
        c = self.config
        self.norm_cross, self.norm_context = c.make_norm(), c.make_norm()
        self.cross_attention = c.make_attention(cross=True)
        self.norm_mlp = c.make_norm()
        self.mlp_in = nn.Dense(c.mlp_dim, dtype=c.dtype, kernel_init=c.init.mlp_in)
        self.mlp_out = nn.Dense(c.width, dtype=c.dtype, kernel_init=c.init.mlp_out)
        self.drop = nn.Dropout(c.dropout)

    def __call__(self, x: jax.Array, context: jax.Array, train: bool = False) -> jax.Array:
        """x [B,T,D], context [B,C,E] -> [B,T,D]."""
        key_value = self.cross_attention.project(self.norm_context(context))
        return self.step(x, key_value, train)

    def start(self, context: jax.Array) -> Kept:
        """The context's keys and values."""
        return keep(self.cross_attention.project(self.norm_context(context)))

    def step(self, x: jax.Array, context: KeyValue | Kept, train: bool = False) -> jax.Array:
        """The same as a call, for any number of positions: they do not see each other."""
        x = x + self.drop(self.cross_attention(self.norm_cross(x), context), not train)
        y = self.mlp_out(self.config.activation(self.mlp_in(self.norm_mlp(x))))
        return x + self.drop(y, not train)


class CaptionStack(Stack):
    """A `Block` and a `CrossBlock` in turns, `layers` of each, and a last norm."""

    def setup(self):
        super().setup()
        block = CrossBlock
        if self.remat != "none":
            block = nn.remat(CrossBlock, policy=REMAT_POLICIES[self.remat], static_argnums=(3,))
        self.cross_blocks = [block(self.config) for _ in range(self.layers)]

    def __call__(
        self, x: jax.Array, context: jax.Array, mask: jax.Array, train: bool = False
    ) -> jax.Array:
        """x [B,T,D], context [B,C,E] -> [B,T,D]."""
        for block, cross in zip(self.blocks, self.cross_blocks, strict=True):
            x = cross(block(x, None, mask, train), context, train)
        return self.norm(x)

    def start(self, batch: int, length: int, context: jax.Array):
        """(caches of self-attention, the context's keys and values) of every layer."""
        contexts = [block.start(context) for block in self.cross_blocks]
        return list(zip(super().start(batch, length), contexts, strict=True))

    def step(self, x: jax.Array, position: jax.Array, caches):
        """x [B,N,D] from index `position` on -> ([B,N,D], caches)."""
        after = []
        for block, cross, (cache, context) in zip(
            self.blocks, self.cross_blocks, caches, strict=True
        ):
            x, cache = block.step(x, position, cache)
            x = cross.step(x, context)
            after.append((cache, context))
        return self.norm(x), after


class CaptionDecoder(nn.Module):
    """What writes captions, given the words of the text tower and the context."""

    vocab_size: int
    layers: int
    config: BlockConfig
    remat: str = "none"

    def setup(self):
        c = self.config
        self.stack = CaptionStack(self.layers, c, remat=self.remat)
        self.head = nn.Dense(
            self.vocab_size,
            use_bias=False,
            dtype=c.dtype,
            kernel_init=nn.initializers.normal(c.width**-0.5),
        )

    def __call__(self, words: jax.Array, context: jax.Array, train: bool = False) -> jax.Array:
        """words [B,T,D], context [B,C,E] -> next-token logits float32 [B,T,V]."""
        return self.write(self.stack(words, context, causal_mask(words.shape[1]), train))

    def start(self, context: jax.Array, length: int):
        """Caches for `length` positions."""
        return self.stack.start(len(context), length, context)

    def step(self, words: jax.Array, position: jax.Array, caches):
        """words [B,N,D] from index `position` on -> (states [B,N,D], caches)."""
        return self.stack.step(words, position, caches)

    def write(self, x: jax.Array) -> jax.Array:
        """States [..,D] -> next-token logits float32 [..,V]."""
        return self.head(x).astype(jnp.float32)
