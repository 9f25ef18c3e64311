"""The one attention of capjax: multi-head attention over explicit keys and values.

Letters: B batch, T query positions, S key positions, D width of the input, F features of all
heads together, H heads, G heads of keys and values (H, or a divisor of it: grouped queries,
arXiv 2305.13245), K head width (F / H unless said), O width of the output (F unless said).

Keys and values are a value of their own (`KeyValue`), so that one module serves training
(projected from the input), cross-attention (projected once from the context and kept) and cached
decoding (projected position by position into a fixed buffer).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax.models.lora import Lora, LowRank
from capjax.models.rotary import Rotary


class KeyValue(NamedTuple):
    """Projected keys and values, each [B, S, G, K]."""

    key: jax.Array
    value: jax.Array


_HIDDEN = -0.7 * float(np.finfo(np.float32).max)  # a score that never counts, yet is a number


class Kept(NamedTuple):
    """Keys and values that are read again and again, each [B, G, S, K].

    Heads first: what one query reads lies together, so that its products need no copy of the whole
    cache turned round, which XLA for CPUs makes otherwise in each step.
    """

    key: jax.Array
    value: jax.Array


def keep(new: KeyValue) -> Kept:
    """The same keys and values, heads first."""
    return Kept(*(x.swapaxes(1, 2) for x in new))


def kept_as(dtype: str | None, state: Any) -> Any:
    """A tree of caches with all keys and values of this type; None: as they are."""
    if dtype is None:
        return state
    return jax.tree.map(
        lambda x: Kept(*(y.astype(dtype) for y in x)) if isinstance(x, Kept) else x,
        state,
        is_leaf=lambda x: isinstance(x, Kept),
    )


def attend_kept(
    query: jax.Array,
    kept: Kept,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """`attention` over keys and values that are kept: query [B,T,H,K] -> [B,T,H,K].

    The softmax is in float32, as there; `implementation` does not count, for one query at a time
    leaves a kernel nothing to do. Keys and values of fewer bits are not widened, which would cost
    what they save: queries and weights are rounded to them, and sums are float32.
    """
    batch, length, heads, width = query.shape
    groups = kept.key.shape[1]
    q = query.swapaxes(1, 2).reshape(batch, groups, heads // groups * length, width)
    q = q.astype(kept.key.dtype)
    scores = jnp.einsum("bgrk,bgsk->bgrs", q, kept.key, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, heads, length, -1) * (width**-0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, _HIDDEN)
    p = jax.nn.softmax(scores).astype(kept.value.dtype)
    p = p.reshape(batch, groups, heads // groups * length, -1)
    read = jnp.einsum("bgrs,bgsk->bgrk", p, kept.value, preferred_element_type=jnp.float32)
    return read.reshape(batch, heads, length, -1).swapaxes(1, 2).astype(query.dtype)


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    implementation: str = "xla",
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """softmax(scale q k^T + bias) v, with scale = 1 / sqrt(K) unless given.

    query [B,T,H,K], key and value [B,S,G,K], mask bool and bias broadcastable to [B,H,T,S] (True:
    may be seen) -> [B,T,H,K]. `implementation` is "xla" or "cudnn", those of
    `jax.nn.dot_product_attention`.
    """
    return jax.nn.dot_product_attention(
        query, key, value, bias, mask, scale=scale, implementation=implementation
    )


def causal_mask(length: int) -> jax.Array:
    """bool [1,1,T,T]: position t sees positions 0..t."""
    return jnp.tril(jnp.ones((length, length), bool))[None, None]


class Attention(nn.Module):
    """Multi-head attention with its four projections; parameters float32, computed in `dtype`.

    `in_init` makes the kernels of query, key and value, `out_init` that of the output. With
    `rotary`, queries and keys are turned by their positions, which must be given then.
    """

    features: int
    heads: int
    dtype: jnp.dtype = jnp.float32
    implementation: str = "xla"
    in_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    out_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    out_features: int | None = None
    kv_heads: int | None = None
    head_width: int | None = None
    in_bias: bool = True
    out_bias: bool = True
    rotary: Rotary | None = None
    scale: float | None = None
    lora: Lora | None = None

    def setup(self):
        kv_heads = self.kv_heads or self.heads
        if self.head_width is None and self.features % self.heads:
            raise ValueError(f"width {self.features} does not divide into {self.heads} heads")
        if self.heads % kv_heads:
            raise ValueError(f"{self.heads} heads do not share {kv_heads} heads of keys evenly")
        width = self.head_width or self.features // self.heads

        def projection(heads: int) -> nn.DenseGeneral:
            return nn.DenseGeneral(
                (heads, width), use_bias=self.in_bias, dtype=self.dtype, kernel_init=self.in_init
            )

        self.query, self.key, self.value = map(projection, (self.heads, kv_heads, kv_heads))
        features = self.out_features or self.features
        self.out = nn.DenseGeneral(
            features,
            axis=(-2, -1),
            use_bias=self.out_bias,
            dtype=self.dtype,
            kernel_init=self.out_init,
        )
        adapted = self.lora.layers if self.lora else ()
        for name, heads in (("query", self.heads), ("key", kv_heads), ("value", kv_heads)):
            if name in adapted:
                low_rank = LowRank((heads, width), self.lora, dtype=self.dtype)
                setattr(self, f"{name}_lora", low_rank)
        if "out" in adapted:
            self.out_lora = LowRank(features, self.lora, (-2, -1), self.dtype)

    def _layer(self, name: str, x: jax.Array) -> jax.Array:
        """One of the four projections, with what it has learnt beside it."""
        y = getattr(self, name)(x)
        adapted = self.lora is not None and name in self.lora.layers
        return y + getattr(self, f"{name}_lora")(x) if adapted else y

    def project(self, context: jax.Array, positions: jax.Array | None = None) -> KeyValue:
        """Keys and values of a context [B,S,D], at positions int32 [S] or [B,S]."""
        key, value = self._layer("key", context), self._layer("value", context)
        return KeyValue(self.rotary.turn(key, positions) if self.rotary else key, value)

    def __call__(
        self,
        x: jax.Array,
        key_value: KeyValue | Kept,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        """x [B,T,D] attends to `key_value` -> [B,T,O]."""
        query = self._layer("query", x)
        if self.rotary:
            query = self.rotary.turn(query, positions)
        if isinstance(key_value, Kept):
            return self._layer("out", attend_kept(query, key_value, mask, bias, self.scale))
        attended = attention(
            query, key_value.key, key_value.value, mask, self.implementation, bias, self.scale
        )
        return self._layer("out", attended)
