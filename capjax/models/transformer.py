"""Transformer blocks, with or without cross-attention, cached or not.

Pre-LayerNorm unless `BlockConfig.post_norm` asks for the order of the first transformers and BERT.

Letters: B batch, T positions, S context positions, D width, H heads, K head width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer

from capjax.errors import UserError
from capjax.models.attention import Attention, KeyValue

REMAT_POLICIES = {
    "full": None,  # keep only each block's input
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the matmuls' outputs
}


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x), the approximation of GELU that CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": nn.gelu,
    "quick_gelu": quick_gelu,
}


def activation_of(name: str) -> Callable[[jax.Array], jax.Array]:
    """The activation of this name; UserError if there is none."""
    if name not in ACTIVATIONS:
        raise UserError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


class BlockInit(NamedTuple):
    """Initialisers of the kernels of a block."""

    attention_in: Initializer = nn.initializers.lecun_normal()
    attention_out: Initializer = nn.initializers.lecun_normal()
    mlp_in: Initializer = nn.initializers.lecun_normal()
    mlp_out: Initializer = nn.initializers.lecun_normal()


class BlockConfig(NamedTuple):
    """What every block of a tower shares."""

    width: int
    heads: int
    mlp_dim: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    attention: str = "xla"
    activation: Callable[[jax.Array], jax.Array] = nn.gelu
    epsilon: float = 1e-6  # of the LayerNorms
    post_norm: bool = False
    init: BlockInit = BlockInit()

    def layer_norm(self) -> nn.LayerNorm:
        """A LayerNorm of the tower."""
        return nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype)

    def make_attention(self, name: str | None = None) -> Attention:
        """A multi-head attention of the tower; named in modules that are compact."""
        return Attention(
            self.width,
            self.heads,
            self.dtype,
            self.attention,
            self.init.attention_in,
            self.init.attention_out,
            name=name,
        )


class BlockCache(NamedTuple):
    """What one block keeps between decoding steps."""

    self_attention: KeyValue  # [B,T,H,K]: filled position by position
    cross_attention: KeyValue | None  # [B,S,H,K]: projected once


class Block(nn.Module):
    """x + self-attention, (+ cross-attention), + MLP; each on a LayerNorm of its input.

    In a post-norm block the LayerNorm follows the sum instead.
    """

    config: BlockConfig
    cross: bool = False

    def setup(self):
        c = self.config
        self.norm_self = c.layer_norm()
        self.self_attention = c.make_attention()
        if self.cross:
            self.norm_cross = c.layer_norm()
            self.cross_attention = c.make_attention()
        self.norm_mlp = c.layer_norm()
        self.mlp_in = nn.Dense(c.mlp_dim, dtype=c.dtype, kernel_init=c.init.mlp_in)
        self.mlp_out = nn.Dense(c.width, dtype=c.dtype, kernel_init=c.init.mlp_out)
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
        y = self._before(self.norm_self, x)
        y = self.self_attention(y, self.self_attention.project(y), mask)
        x = self._after(self.norm_self, x, y, train)
        cross = self.cross_attention.project(context) if self.cross else None
        return self._rest(x, cross, train)

    def _rest(self, x: jax.Array, cross: KeyValue | None, train: bool) -> jax.Array:
        """What follows self-attention: the same for whole captions and for one step."""
        if cross is not None:
            y = self.cross_attention(self._before(self.norm_cross, x), cross)
            x = self._after(self.norm_cross, x, y, train)
        y = self._before(self.norm_mlp, x)
        y = self.mlp_out(self.config.activation(self.mlp_in(y)))
        return self._after(self.norm_mlp, x, y, train)

    def _before(self, norm: nn.LayerNorm, x: jax.Array) -> jax.Array:
        """What a layer reads."""
        return x if self.config.post_norm else norm(x)

    def _after(self, norm: nn.LayerNorm, x: jax.Array, y: jax.Array, train: bool) -> jax.Array:
        """The residual sum of x and the layer's output y."""
        x = x + self.drop(y, not train)
        return norm(x) if self.config.post_norm else x

    def start(self, batch: int, length: int, context: jax.Array | None = None) -> BlockCache:
        """An empty cache for `length` positions; the context's keys and values are in it."""
        c = self.config
        empty = jnp.zeros((batch, length, c.heads, c.width // c.heads), c.dtype)
        cross = self.cross_attention.project(context) if self.cross else None
        return BlockCache(KeyValue(empty, empty), cross)

    def step(self, x: jax.Array, position: jax.Array, cache: BlockCache):
        """One position: x [B,1,D] at index `position` -> ([B,1,D], the cache with it)."""
        y = self._before(self.norm_self, x)
        new = self.self_attention.project(y)
        kept = jax.tree.map(
            lambda buffer, row: jax.lax.dynamic_update_slice_in_dim(buffer, row, position, 1),
            cache.self_attention,
            new,
        )
        seen = jnp.arange(kept.key.shape[1]) <= position
        y = self.self_attention(y, kept, seen[None, None, None])
        x = self._after(self.norm_self, x, y, train=False)
        return self._rest(x, cache.cross_attention, False), cache._replace(self_attention=kept)


class Stack(nn.Module):
    """`layers` blocks and a final LayerNorm; rematerialised by name ("none", "full", "dots").

    Post-norm blocks end with a LayerNorm already, so that none follows them.
    """

    layers: int
    config: BlockConfig
    cross: bool = False
    remat: str = "none"

    def setup(self):
        block = Block
        if self.remat != "none":
            block = nn.remat(Block, policy=REMAT_POLICIES[self.remat], static_argnums=(4,))
        self.blocks = [block(self.config, self.cross) for _ in range(self.layers)]
        if not self.config.post_norm:
            self.norm = self.config.layer_norm()

    def _last(self, x: jax.Array) -> jax.Array:
        return x if self.config.post_norm else self.norm(x)

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
        return self._last(x)

    def start(self, batch: int, length: int, context: jax.Array | None = None):
        """Caches of all blocks for a caption of at most `length` positions."""
        return [block.start(batch, length, context) for block in self.blocks]

    def step(self, x: jax.Array, position: jax.Array, caches: list[BlockCache]):
        """One position through all blocks: x [B,1,D] -> ([B,1,D], caches)."""
        after = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.step(x, position, cache)
            after.append(cache)
        return self._last(x), after
