"""The one attention of capjax: multi-head attention over explicit keys and values.

Letters: B batch, T query positions, S key positions, D width of the input, F features of all
heads together, H heads, K = F / H head width, O width of the output (F unless said).

Keys and values are a value of their own (`KeyValue`), so that one module serves training
(projected from the input), cross-attention (projected once from the context and kept) and cached
decoding (projected position by position into a fixed buffer).
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class KeyValue(NamedTuple):
    """Projected keys and values, each [B, S, H, K]."""

    key: jax.Array
    value: jax.Array


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    implementation: str = "xla",
) -> jax.Array:
    """softmax(q k^T / sqrt(K)) v.

    query [B,T,H,K], key and value [B,S,H,K], mask bool broadcastable to [B,H,T,S] (True: may be
    seen) -> [B,T,H,K]. `implementation` is "xla" or "cudnn" (`jax.nn.dot_product_attention`).
    """
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)


def causal_mask(length: int) -> jax.Array:
    """bool [1,1,T,T]: position t sees positions 0..t."""
    return jnp.tril(jnp.ones((length, length), bool))[None, None]


class Attention(nn.Module):
    """Multi-head attention with its four projections; parameters float32, computed in `dtype`.

    `in_init` makes the kernels of query, key and value, `out_init` that of the output.
    """

    features: int
    heads: int
    dtype: jnp.dtype = jnp.float32
    implementation: str = "xla"
    in_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    out_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    out_features: int | None = None

    def setup(self):
        if self.features % self.heads:
            raise ValueError(f"width {self.features} does not divide into {self.heads} heads")
        split = (self.heads, self.features // self.heads)
        self.query = nn.DenseGeneral(split, dtype=self.dtype, kernel_init=self.in_init)
        self.key = nn.DenseGeneral(split, dtype=self.dtype, kernel_init=self.in_init)
        self.value = nn.DenseGeneral(split, dtype=self.dtype, kernel_init=self.in_init)
        self.out = nn.DenseGeneral(
            self.out_features or self.features,
            axis=(-2, -1),
            dtype=self.dtype,
            kernel_init=self.out_init,
        )

    def project(self, context: jax.Array) -> KeyValue:
        """Keys and values of a context [B,S,D]."""
        return KeyValue(self.key(context), self.value(context))

    def __call__(
        self, x: jax.Array, key_value: KeyValue, mask: jax.Array | None = None
    ) -> jax.Array:
        """x [B,T,D] attends to `key_value` -> [B,T,O]."""
        attended = attention(
            self.query(x), key_value.key, key_value.value, mask, self.implementation
        )
        return self.out(attended)
