"""Transformer blocks, with or without cross-attention, cached or not.

Pre-LayerNorm unless `BlockConfig.post_norm` asks for the order of the first transformers and BERT.
The other options are those of published language models: T5's (RMSNorm, no biases, a bias by
distance instead of positions) and Llama's (the same with rotary positions, grouped queries and a
gated MLP, arXiv 2002.05202).

Letters: B batch, T positions, S context positions, D width, H heads, G heads of keys and values,
K head width, N positions of a step.
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
from capjax.models.attention import Attention, Kept, KeyValue, keep
from capjax.models.lora import Lora, LowRank
from capjax.models.rotary import Rotary

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
    "relu": nn.relu,
    "silu": nn.silu,
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
    cross_out: Initializer | None = None  # of a cross-attention, where it is not attention_out


class BlockConfig(NamedTuple):
    """What every block of a tower shares."""

    width: int
    heads: int
    mlp_dim: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    attention: str = "xla"
    activation: Callable[[jax.Array], jax.Array] = nn.gelu
    epsilon: float = 1e-6  # of the norms
    post_norm: bool = False
    init: BlockInit = BlockInit()
    norm: str = "layer"  # or "rms": divided by the root mean square, no mean and no bias
    gated: bool = False  # the MLP is out(activation(gate(x)) * in(x))
    attention_bias: tuple[bool, bool] = (True, True)  # of query, key and value; of the output
    mlp_bias: bool = True
    kv_heads: int | None = None  # of keys and values, where they are fewer than of queries
    head_width: int | None = None  # where it is not width / heads
    attention_scale: float | None = None  # where it is not 1 / sqrt(head width)
    rotary: Rotary | None = None
    lora: Lora | None = None

    def make_norm(self) -> nn.LayerNorm | nn.RMSNorm:
        """A norm of the tower; its sums are float32 in any case."""
        kind = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}[self.norm]
        return kind(epsilon=self.epsilon, dtype=self.dtype)

    def make_attention(self, name: str | None = None, cross: bool = False) -> Attention:
        """A multi-head attention of the tower; named in modules that are compact.

        A cross-attention has no positions to turn by.
        """
        out = (self.init.cross_out if cross else None) or self.init.attention_out
        return Attention(
            self.width,
            self.heads,
            self.dtype,
            self.attention,
            self.init.attention_in,
            out,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
            in_bias=self.attention_bias[0],
            out_bias=self.attention_bias[1],
            rotary=None if cross else self.rotary,
            scale=self.attention_scale,
            lora=self.lora,
            name=name,
        )


class BlockCache(NamedTuple):
    """What one block keeps between decoding steps."""

    self_attention: Kept  # [B,G,T,K]: filled position by position
    cross_attention: Kept | None  # [B,G,S,K]: projected once


class Block(nn.Module):
    """x + self-attention, (+ cross-attention), + MLP; each on a norm of its input.

    In a post-norm block the norm follows the sum instead.
    """

    config: BlockConfig
    cross: bool = False

    def setup(self):
        c = self.config
        self.norm_self = c.make_norm()
        self.self_attention = c.make_attention()
        if self.cross:
            self.norm_cross = c.make_norm()
            self.cross_attention = c.make_attention(cross=True)
        self.norm_mlp = c.make_norm()
        self.mlp_in = self._dense(c.mlp_dim, c.init.mlp_in)
        if c.gated:
            self.mlp_gate = self._dense(c.mlp_dim, c.init.mlp_in)
        self.mlp_out = self._dense(c.width, c.init.mlp_out)
        for name in ("mlp_in", "mlp_gate", "mlp_out") if c.lora else ():
            if name in c.lora.layers:
                features = c.width if name == "mlp_out" else c.mlp_dim
                setattr(self, f"{name}_lora", LowRank(features, c.lora, dtype=c.dtype))
        self.drop = nn.Dropout(c.dropout)

    def _dense(self, features: int, init: Initializer) -> nn.Dense:
        c = self.config
        return nn.Dense(features, use_bias=c.mlp_bias, dtype=c.dtype, kernel_init=init)

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        train: bool = False,
        bias: jax.Array | None = None,
        context_mask: jax.Array | None = None,
    ) -> jax.Array:
        """x [B,T,D], context [B,S,C] for a cross block, mask over self-attention -> [B,T,D].

        `bias` [1,H,T,T] is added to the scores of self-attention, `context_mask` bool
        [B,1,1,S] says what of the context may be seen. The context is not normalised here: a
        context of zeros must reach the keys and values as zeros (guiding, conditioning dropout).
        Without a context a cross block leaves its cross-attention out (BLIP's text encoder).
        """
        y = self._before(self.norm_self, x)
        at = jnp.arange(x.shape[1])
        y = self.self_attention(y, self.self_attention.project(y, at), mask, bias, at)
        x = self._after(self.norm_self, x, y, train)
        read = self.cross and context is not None
        cross = self.cross_attention.project(context) if read else None
        return self._rest(x, cross, train, context_mask)

    def _rest(self, x, cross: KeyValue | Kept | None, train: bool, context_mask=None) -> jax.Array:
        """What follows self-attention: the same for whole captions and for one step."""
        if cross is not None:
            y = self.cross_attention(self._before(self.norm_cross, x), cross, context_mask)
            x = self._after(self.norm_cross, x, y, train)
        return self._after(self.norm_mlp, x, self._mlp(self._before(self.norm_mlp, x)), train)

    def _mlp(self, x: jax.Array) -> jax.Array:
        activation, y = self.config.activation, self._layer("mlp_in", x)
        hidden = activation(self._layer("mlp_gate", x)) * y if self.config.gated else activation(y)
        return self._layer("mlp_out", hidden)

    def _layer(self, name: str, x: jax.Array) -> jax.Array:
        """One of the MLP's layers, with what it has learnt beside it."""
        y, lora = getattr(self, name)(x), self.config.lora
        return y + getattr(self, f"{name}_lora")(x) if lora and name in lora.layers else y

    def _before(self, norm: nn.Module, x: jax.Array) -> jax.Array:
        """What a layer reads."""
        return x if self.config.post_norm else norm(x)

    def _after(self, norm: nn.Module, x: jax.Array, y: jax.Array, train: bool) -> jax.Array:
        """The residual sum of x and the layer's output y."""
        x = x + self.drop(y, not train)
        return norm(x) if self.config.post_norm else x

    def start(self, batch: int, length: int, context: jax.Array | None = None) -> BlockCache:
        """An empty cache for `length` positions; the context's keys and values are in it."""
        c = self.config
        shape = (c.kv_heads or c.heads, c.head_width or c.width // c.heads)
        empty = jnp.zeros((batch, shape[0], length, shape[1]), c.dtype)
        cross = keep(self.cross_attention.project(context)) if self.cross else None
        return BlockCache(Kept(empty, empty), cross)

    def step(
        self,
        x: jax.Array,
        position: jax.Array,
        cache: BlockCache,
        bias: jax.Array | None = None,
        context_mask: jax.Array | None = None,
    ):
        """The next N positions: x [B,N,D], the first at index `position` -> ([B,N,D], the cache
        with them). `bias` [1,H,N,T] as in the call, over all positions of the cache."""
        y = self._before(self.norm_self, x)
        at = position + jnp.arange(x.shape[1])
        new = keep(self.self_attention.project(y, at))
        kept = jax.tree.map(
            lambda buffer, rows: jax.lax.dynamic_update_slice_in_dim(
                buffer, rows.astype(buffer.dtype), position, 2
            ),
            cache.self_attention,
            new,
        )
        seen = jnp.arange(kept.key.shape[2]) <= at[:, None]
        y = self.self_attention(y, kept, seen[None, None], bias, at)
        x = self._after(self.norm_self, x, y, train=False)
        x = self._rest(x, cache.cross_attention, False, context_mask)
        return x, cache._replace(self_attention=kept)


class Stack(nn.Module):
    """`layers` blocks and a final norm; rematerialised by name ("none", "full", "dots").

    Post-norm blocks end with a norm already, so that none follows them.
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
            self.norm = self.config.make_norm()

    def _last(self, x: jax.Array) -> jax.Array:
        return x if self.config.post_norm else self.norm(x)

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        train: bool = False,
        bias: jax.Array | None = None,
        context_mask: jax.Array | None = None,
    ) -> jax.Array:
        """x [B,T,D] -> [B,T,D]; see `Block`."""
        for block in self.blocks:
            x = block(x, context, mask, train, bias, context_mask)
        return self._last(x)

    def start(self, batch: int, length: int, context: jax.Array | None = None):
        """Caches of all blocks for a caption of at most `length` positions."""
        return [block.start(batch, length, context) for block in self.blocks]

    def step(
        self,
        x: jax.Array,
        position: jax.Array,
        caches: list[BlockCache],
        bias: jax.Array | None = None,
        context_mask: jax.Array | None = None,
    ):
        """The next positions through all blocks: x [B,N,D] -> ([B,N,D], caches)."""
        after = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.step(x, position, cache, bias, context_mask)
            after.append(cache)
        return self._last(x), after
