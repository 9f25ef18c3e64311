"""Rotary position embeddings (Su et al. 2021, arXiv 2104.09864): queries and keys are turned.

Channel i of the first half of a head and channel i of the second half are one plane, turned by
position * frequency_i; so the product of a query and a key depends on how far apart they are.
Published Llama and Qwen weights have this order of channels (not neighbouring pairs).

Letters: B batch, T positions, H heads, K head width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Stretch(NamedTuple):
    """How Llama 3.1 turns more slowly than it was trained to, for longer texts.

    Waves shorter than `trained / high` stay, those longer than `trained / low` become `factor`
    times as long, and between the two there is a smooth passage (Llama 3.1's published code).
    With low = high = 0 all become `factor` times as long (linear scaling, arXiv 2306.15595).
    """

    factor: float
    low: float = 0.0
    high: float = 0.0
    trained: int = 0  # positions


class Rotary(NamedTuple):
    """`theta` is the base of the frequencies theta^(-2i/K)."""

    theta: float = 10_000.0
    stretch: Stretch | None = None

    def frequencies(self, width: int) -> np.ndarray:
        """float32 [K/2], in radians a position."""
        frequency = self.theta ** (-np.arange(0, width, 2) / width)
        if self.stretch is None:
            return frequency.astype(np.float32)
        factor, low, high, trained = self.stretch
        if not high:
            return (frequency / factor).astype(np.float32)
        waves = trained * frequency / (2 * math.pi)  # how many fit into the trained length
        kept = np.clip((waves - low) / (high - low), 0, 1)
        return (kept * frequency + (1 - kept) * frequency / factor).astype(np.float32)

    def turn(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """x [B,T,H,K] of positions int32 [T] or [B,T], turned; angles and products in float32."""
        angles = positions[..., None].astype(jnp.float32) * self.frequencies(x.shape[-1])
        cos, sin = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
        first, second = jnp.split(x.astype(jnp.float32), 2, -1)
        turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
        return turned.astype(x.dtype)
