"""Captions as a reward sees them on the devices, and their rows for the encoder that judges them.

Letters: b pictures, K captions of each, L positions of the captioner's rows, R of the encoder's, P
tokens of a prefix.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from capjax.special_tokens import SpecialTokens


class Captions(NamedTuple):
    """Written captions of b pictures."""

    tokens: jax.Array  # int32 [b,K,L]: BOS, words, EOS (none, where the room did not do), PAD
    written: jax.Array  # bool [b,K,L-1] of tokens[..., 1:]: True up to EOS, it included
    words: jax.Array  # the same without EOS
    own: jax.Array  # int32 [b]: which rows of the whole batch these pictures are
    rows: dict[str, jax.Array]  # int32 [b,K,R] of other vocabularies, by the name of the reward

    @property
    def lengths(self) -> jax.Array:
        """int32 [b,K]: tokens without BOS and EOS."""
        return self.words.sum(-1)


def of_tokens(
    tokens: jax.Array, special: SpecialTokens, own: jax.Array, rows: dict[str, jax.Array]
) -> Captions:
    """The captions of rows int32 [b,K,L]."""
    written = special.to_write(tokens)
    words = written & (tokens[..., 1:] != special.eos)
    return Captions(tokens, written, words, own, rows)


def rows_for(
    captions: Captions, prefix: tuple[int, ...], special: SpecialTokens, length: int
) -> jax.Array:
    """int32 [b,K,R]: the captions behind a prefix [P] as rows of `length` R in the same vocabulary.

    What does not fit is cut before EOS, as `TokenRows.encode` does.
    """
    shape = captions.tokens.shape[:-1]
    begun = jnp.asarray(np.array([special.start, *prefix], np.int32))
    begun = jnp.broadcast_to(begun, (*shape, len(prefix) + 1))
    missing = jnp.full((*shape, length), special.pad, jnp.int32)
    row = jnp.concatenate([begun, captions.tokens[..., 1:], missing], -1)[..., :length]
    end = jnp.minimum(len(prefix) + 1 + captions.lengths, length - 1)[..., None]
    place = jnp.arange(length)
    return jnp.where(place < end, row, jnp.where(place == end, special.eos, special.pad))
