"""Captions that occur more than once in a batch: false negatives of a contrastive loss.

A picture whose caption is also another's is told that this other caption, word for word its own,
is wrong. Web data are full of them: ALIGN (arXiv 2102.05918) drops captions of more than ten
pictures.

Letters: B captions, L tokens.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_FACTOR = 0x9E3779B1  # odd, its bits scattered: 2^32 / golden ratio


def caption_numbers(tokens: jax.Array) -> jax.Array:
    """int32 [B]: equal for equal rows of int [B,L].

    A hash of 32 bits: of two different captions the numbers are equal once in 4 billion.
    """
    number = jnp.zeros(len(tokens), jnp.uint32)
    for column in tokens.astype(jnp.uint32).T:
        number = (number ^ column) * jnp.uint32(_FACTOR)
        number ^= number >> 15
    return jax.lax.bitcast_convert_type(number, jnp.int32)


def duplicates(numbers: jax.Array) -> jax.Array:
    """int32 []: how many captions of the batch stand in it already; numbers as above."""
    ordered = jnp.sort(numbers)
    return jnp.sum(ordered[1:] == ordered[:-1], dtype=jnp.int32)
