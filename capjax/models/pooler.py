"""Attentional poolers: learned queries read a sequence.

Letters: B batch, N tokens read, Q queries, F features, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.models.attention import Attention
from capjax.models.transformer import BlockConfig


class AttentionalPooler(nn.Module):
    """One attention layer with `queries` learned queries: [B,N,D] -> [B,Q,F], LayerNormed.

    CoCa, arXiv 2205.01917, section 3.2.
    """

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


class MapHead(nn.Module):
    """Multi-head attention pooling with one query, then an MLP of its own: [B,N,D] -> [B,D].

    Zhai et al. 2022 (Scaling vision transformers, arXiv 2106.04560), section 3.2; SigLIP.
    """

    config: BlockConfig

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        c = self.config
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, c.width))
        query = jnp.broadcast_to(probe.astype(c.dtype), (tokens.shape[0], *probe.shape))
        attend = c.make_attention(name="attention")
        x = attend(query, attend.project(tokens))[:, 0]
        y = nn.LayerNorm(epsilon=c.epsilon, dtype=c.dtype, name="norm")(x)
        y = nn.Dense(c.mlp_dim, dtype=c.dtype, kernel_init=c.init.mlp_in, name="mlp_in")(y)
        mlp_out = nn.Dense(c.width, dtype=c.dtype, kernel_init=c.init.mlp_out, name="mlp_out")
        return x + mlp_out(c.activation(y))
