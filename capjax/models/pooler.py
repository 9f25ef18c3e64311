"""Attentional pooler: learned queries read a sequence (CoCa, arXiv 2205.01917, section 3.2).

Letters: B batch, N tokens read, Q queries, F features.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.models.attention import Attention


class AttentionalPooler(nn.Module):
    """One attention layer with `queries` learned queries: [B,N,D] -> [B,Q,F], LayerNormed."""

    queries: int
    features: int
    heads: int
    dtype: jnp.dtype = jnp.float32
    attention: str = "xla"

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        queries = self.param("queries", nn.initializers.normal(0.02), (self.queries, self.features))
        x = jnp.broadcast_to(queries.astype(self.dtype), (tokens.shape[0], *queries.shape))
        attend = Attention(self.features, self.heads, self.dtype, self.attention, name="attention")
        return nn.LayerNorm(dtype=self.dtype, name="norm")(attend(x, attend.project(tokens)))
