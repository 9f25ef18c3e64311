"""Repetition: minus the share of a caption's n-grams of tokens that stood in it before.

0 for a caption that repeats nothing, or that is shorter than n; -3/4 for "red red red red red" with
n = 2. Letters: b pictures, K captions of each, T positions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from capjax.errors import UserError
from capjax.rewards.captions import Captions


class Reward:
    """n: tokens of an n-gram."""

    def __init__(self, *, n: int = 2):
        if n < 1:
            raise UserError(f"n={n} must be at least 1: the tokens of an n-gram")
        self._n = n

    def score(self, arrays: Any, prepared: Any, captions: Captions) -> jax.Array:
        """float32 [b,K]."""
        return -repeated_share(captions.tokens[..., 1:], captions.words, self._n)


def repeated_share(tokens: jax.Array, words: jax.Array, n: int) -> jax.Array:
    """float32 [...]: n-grams of tokens int32 [...,T] that occur earlier, by all; words bool [...,T]
    are True up to the last word."""
    count = tokens.shape[-1] - n + 1
    if count < 1:
        return jnp.zeros(tokens.shape[:-1])
    there = words[..., n - 1 :]  # an n-gram begins here and its last token is a word
    same = jnp.ones((*tokens.shape[:-1], count, count), bool)
    for k in range(n):
        piece = tokens[..., k : k + count]
        same &= piece[..., :, None] == piece[..., None, :]
    earlier = jnp.tril(jnp.ones((count, count), bool), -1)
    again = jnp.any(same & earlier & there[..., None, :], -1) & there
    return again.sum(-1) / jnp.maximum(there.sum(-1), 1)
