"""Beams that owe phrases: a beam's slots are shared between captions that need more and fewer.

Captions that hold none of the phrases are likelier than those that hold some, and would crowd them
out. So captions are put into banks by the number of tokens that they still need, and the slots go
round: to the best of each bank, then to the second best of each, until none is left (dynamic beam
allocation, Post and Vilar 2018, arXiv 1804.06609, where the slots of a bank without captions go to
its neighbours; grid beam search, Hokamp and Liu 2017, arXiv 1704.07138, has a beam for each bank).
Before, to the best continuations of all beams are added those by each phrase's tokens, and each
beam's own best. With nothing to contain there is one bank, and this is beam search.

Letters: B pictures, W beams, N continuations, S tokens of a picture's phrases, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from capjax.decode import phrases as phrases_lib
from capjax.decode.phrases import NONE, Phrases

LOW = -1e9  # below every score, and finite
# What a phrase's token is worth at least, if rules such as `no_repeat_ngram` forbid it: it must be
# written, but where another caption has the phrases without it, that is better.
AT_LEAST = -1e5


class Continuations(NamedTuple):
    """Beams and a token each, [B,N]."""

    score: jax.Array  # LOW: it cannot be
    origin: jax.Array  # int32: the beam
    token: jax.Array  # int32
    needed: jax.Array  # int32: tokens that are needed after it


def continuations(
    phrases: Phrases,
    history: jax.Array,
    position: jax.Array,
    first: int,
    eos: int,
    before: jax.Array,
    scores: jax.Array,
) -> Continuations:
    """N = 2 W + W + W S of them, none twice.

    history int32 [B,W,H], of which `position` + 1 tokens are there and index `first` is the first
    word; before [B,W]: the beams' scores, scores [B,W,V]: the next token's, which are added.
    """
    batch, width, size = scores.shape
    progress = phrases_lib.read(phrases, history, position + 1, first)
    room = history.shape[-1] - 2 - position  # tokens that may follow the next one
    total = before[..., None] + scores
    # Of the many tokens that are in no phrase only two kinds differ: those that join, or not.
    kinds = jnp.array([False, True])
    other = phrases_lib.needed(phrases, progress, jnp.full((batch, 1, 2), NONE), kinds)
    ends = jnp.arange(size) == eos
    owed = jnp.where(phrases.joins & ~ends, other[..., 1:], other[..., :1])  # [B,W,V]
    possible = jnp.where(ends, owed == 0, owed <= room)
    rows = jnp.arange(batch)[:, None, None], jnp.arange(width)[:, None]
    place = jnp.where(phrases.special == NONE, size, phrases.special)[:, None]
    plain = jnp.where(possible, total, -jnp.inf).at[*rows, place].set(-jnp.inf, mode="drop")
    best, at = jax.lax.top_k(plain.reshape(batch, -1), min(2 * width, width * size))
    # Each beam's best, unless it is there already.
    own = jnp.argmax(plain, -1) + jnp.arange(width) * size
    there = jnp.any(own[..., None] == at[:, None], -1)
    own_best = jnp.where(there, -jnp.inf, plain.max(-1))
    # All tokens of the phrases.
    tokens = jnp.maximum(phrases.special, 0)[:, None]  # [B,1,S]
    joined = phrases.joins[tokens]
    need = phrases_lib.needed(phrases, progress, phrases.special[:, None], joined)
    worth = jnp.take_along_axis(scores, jnp.broadcast_to(tokens, need.shape), -1)
    worth = jnp.where(need < other[..., :1], jnp.maximum(worth, AT_LEAST), worth)
    asked = before[..., None] + worth
    asked = jnp.where((phrases.special[:, None] != NONE) & (need <= room), asked, -jnp.inf)
    of_asked = jnp.arange(width)[:, None] * size + tokens

    def flat(x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(x, asked.shape).reshape(batch, -1)

    owed = owed.reshape(batch, -1)
    score = jnp.concatenate([best, own_best, flat(asked)], 1)
    index = jnp.concatenate([at, own, flat(of_asked)], 1)
    owed = [jnp.take_along_axis(owed, x, 1) for x in (at, own)]
    return Continuations(
        jnp.maximum(score, LOW),
        index // size,
        (index % size).astype(jnp.int32),
        jnp.concatenate([*owed, flat(need)], 1),
    )


def rank(score: jax.Array, needed: jax.Array) -> jax.Array:
    """int32 [B,N]: how many of the same bank are better, of equal ones those before."""
    order = jnp.lexsort((-score, needed), axis=-1)
    bank, places = jnp.take_along_axis(needed, order, 1), jnp.arange(order.shape[1])
    is_first = bank != jnp.roll(bank, 1, 1)
    begins = jax.lax.cummax(jnp.where(is_first.at[:, 0].set(True), places, 0), axis=1)
    return jnp.take_along_axis(places - begins, jnp.argsort(order, 1), 1)


def share(score: jax.Array, needed: jax.Array, width: int) -> jax.Array:
    """int32 [B,W]: which of [B,N] get the slots; those who need the least are served first."""
    dead = score <= LOW / 2
    order = jnp.lexsort((-score, needed, rank(score, needed), dead), axis=-1)
    return order[:, :width]
