"""Pre-LayerNorm transformer blocks, with or without cross-attention, cached or not.

Letters: B batch, T positions, S context positions, D width, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.models.attention import Attention, KeyValue

REMAT_POLICIES = {
    "full": None,  # keep only each block's input
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the matmuls' outputs
}


class BlockConfig(NamedTuple):
    """What every block of a tower shares."""

    width: int
    heads: int
    mlp_dim: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    attention: str = "xla"
    activation: Callable[[jax.Array], jax.Array] = nn.gelu


class BlockCache(NamedTuple):
    """What one block keeps between decoding steps."""

    self_attention: KeyValue  # [B,T,H,K]: filled position by position
    cross_attention: KeyValue | None  # [B,S,H,K]: projected once


class Block(nn.Module):
    """x + self-attention, (+ cross-attention), + MLP; each on a LayerNorm of its input."""

    config: BlockConfig
    cross: bool = False

    def setup(self):
        c = self.config
        self.norm_self = nn.LayerNorm(dtype=c.dtype)
        self.self_attention = Attention(c.width, c.heads, c.dtype, c.attention)
        if self.cross:
            self.norm_cross = nn.LayerNorm(dtype=c.dtype)
            self.cross_attention = Attention(c.width, c.heads, c.dtype, c.attention)
        self.norm_mlp = nn.LayerNorm(dtype=c.dtype)
        self.mlp_in = nn.Dense(c.mlp_dim, dtype=c.dtype)
        self.mlp_out = nn.Dense(c.width, dtype=c.dtype)
        self.drop = nn.Dropout(c.dropout)

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """x [B,T,D], context [B,S,C] for a cross block, mask over self-attention -> [B,T,D].

        The context is not normalised here: a context of zeros must reach the keys and values
        as zeros (guiding, conditioning dropout).
        """
        y = self.norm_self(x)
        x = x + self.drop(self.self_attention(y, self.self_attention.project(y), mask), not train)
        cross = self.cross_attention.project(context) if self.cross else None
        return self._rest(x, cross, train)

    def _rest(self, x: jax.Array, cross: KeyValue | None, train: bool) -> jax.Array:
        """What follows self-attention: the same for whole captions and for one step."""
        if cross is not None:
            x = x + self.drop(self.cross_attention(self.norm_cross(x), cross), not train)
        y = self.mlp_out(self.config.activation(self.mlp_in(self.norm_mlp(x))))
        return x + self.drop(y, not train)

    def start(self, batch: int, length: int, context: jax.Array | None = None) -> BlockCache:
        """An empty cache for `length` positions; the context's keys and values are in it."""
        c = self.config
        empty = jnp.zeros((batch, length, c.heads, c.width // c.heads), c.dtype)
        cross = self.cross_attention.project(context) if self.cross else None
        return BlockCache(KeyValue(empty, empty), cross)

    def step(self, x: jax.Array, position: jax.Array, cache: BlockCache):
        """One position: x [B,1,D] at index `position` -> ([B,1,D], the cache with it)."""
        y = self.norm_self(x)
        new = self.self_attention.project(y)
        kept = jax.tree.map(
            lambda buffer, row: jax.lax.dynamic_update_slice_in_dim(buffer, row, position, 1),
            cache.self_attention,
            new,
        )
        seen = jnp.arange(kept.key.shape[1]) <= position
        x = x + self.self_attention(y, kept, seen[None, None, None])
        return self._rest(x, cache.cross_attention, False), cache._replace(self_attention=kept)


class Stack(nn.Module):
    """`layers` blocks and a final LayerNorm; rematerialised by name ("none", "full", "dots")."""

    layers: int
    config: BlockConfig
    cross: bool = False
    remat: str = "none"

    def setup(self):
        block = Block
        if self.remat != "none":
            block = nn.remat(Block, policy=REMAT_POLICIES[self.remat], static_argnums=(4,))
        self.blocks = [block(self.config, self.cross) for _ in range(self.layers)]
        self.norm = nn.LayerNorm(dtype=self.config.dtype)

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """x [B,T,D] -> [B,T,D]; see `Block`."""
        for block in self.blocks:
            x = block(x, context, mask, train)
        return self.norm(x)

    def start(self, batch: int, length: int, context: jax.Array | None = None):
        """Caches of all blocks for a caption of at most `length` positions."""
        return [block.start(batch, length, context) for block in self.blocks]

    def step(self, x: jax.Array, position: jax.Array, caches: list[BlockCache]):
        """One position through all blocks: x [B,1,D] -> ([B,1,D], caches)."""
        after = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.step(x, position, cache)
            after.append(cache)
        return self.norm(x), after
