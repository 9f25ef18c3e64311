"""Phrases that a caption must contain: how much of them it holds, and what a next token changes.

A phrase is met by any of its alternatives ("red", "Red"), token after token, anywhere in the
caption. A token that goes on with the word before it (`joins`) spoils a phrase that it stands
behind, "red" in "reduced", and one that does so itself begins a phrase only as a caption's first.

How many tokens a caption still needs is what beams are ordered by (`banks`): of every phrase that
is unmet the length of its shortest alternative, less what is written of the one that is furthest.
There is always a token after which it is one less, so that a caption that has room stays possible.
Phrases that could share tokens ("a red", "red car") are counted apart: what they fit into only by
sharing is not found.

Letters: B pictures, C phrases, A alternatives, L tokens of the longest, S tokens of all a picture's
phrases, W beams, H history: tokens read and written, of which `length` are there, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from capjax.errors import UserError
from capjax.special_tokens import SpecialTokens

NONE = -1  # no token

Wanted = Sequence[Sequence[Sequence[Sequence[int]]]]  # of each picture each phrase's alternatives


class Phrases(NamedTuple):
    """What each picture's captions must contain; an alternative of no tokens is none."""

    tokens: Any  # int32 [B,C,A,L], behind the end of an alternative NONE
    lengths: Any  # int32 [B,C,A]
    shortest: Any  # int32 [B,C]: tokens of the shortest alternative, 0 where there is no phrase
    special: Any  # int32 [B,S]: each token of the phrases once, then NONE
    joins: Any  # bool [V]


class Progress(NamedTuple):
    """How far captions [B,W] are."""

    prefix: jax.Array  # bool [B,W,C,A,L]: the last l + 1 tokens are an alternative's first
    settled: jax.Array  # bool [B,W,C]: met, whatever follows
    begun: jax.Array  # bool: there is a word


def make(
    wanted: Wanted,
    vocab_size: int,
    special: SpecialTokens,
    joins: np.ndarray | None = None,
) -> Phrases:
    """The arrays, whose sizes are powers of 2, so that most batches share a compiled loop.

    Raises UserError for a phrase that no caption can contain.
    """
    joins = np.zeros(vocab_size, bool) if joins is None else np.asarray(joins, bool)
    for phrases in wanted:
        for phrase in phrases:
            if not phrase or not all(map(len, phrase)):
                raise UserError(f"a phrase that captions must contain has no tokens: {phrase!r}")
            for token in (token for alternative in phrase for token in alternative):
                if not 0 <= token < vocab_size or token in (special.eos, *special.never_written):
                    raise UserError(
                        f"captions cannot contain the phrase {phrase!r}: its token {token} is no "
                        "word of the vocabulary; choose other words"
                    )
            if all(joins[alternative[0]] for alternative in phrase):
                raise UserError(
                    f"the phrase {phrase!r} begins within a word: give the tokens that it has "
                    "behind a space"
                )
    sizes = [
        max(map(len, wanted), default=0),
        max((len(p) for row in wanted for p in row), default=0),
        max((len(a) for row in wanted for p in row for a in p), default=0),
    ]
    shape = (len(wanted), *map(_rounded, sizes))
    tokens, lengths = np.full(shape, NONE, np.int32), np.zeros(shape[:3], np.int32)
    shortest = np.zeros(shape[:2], np.int32)
    distinct = [sorted({t for phrase in row for a in phrase for t in a}) for row in wanted]
    own = np.full((len(wanted), _rounded(max(map(len, distinct), default=0))), NONE, np.int32)
    for b, row in enumerate(wanted):
        own[b, : len(distinct[b])] = distinct[b]
        for c, phrase in enumerate(row):
            shortest[b, c] = min(len(a) for a in phrase if not joins[a[0]])
            for a, alternative in enumerate(phrase):
                tokens[b, c, a, : len(alternative)] = alternative
                lengths[b, c, a] = len(alternative)
    return Phrases(tokens, lengths, shortest, own, joins)


def check_room(phrases: Phrases, prompt: np.ndarray, lengths: np.ndarray, steps: int) -> None:
    """UserError where phrases do not fit behind the prompt [B,P], whose lengths are [B], in `steps`
    tokens. Phrases that share tokens are counted as if they did not."""
    for b, (row, length) in enumerate(zip(prompt, lengths, strict=True)):
        text = row[:length].tolist()
        needed = sum(
            int(phrases.shortest[b, c])
            for c in range(phrases.shortest.shape[1])
            if not _contains(text, phrases, b, c)
        )
        if needed > steps - length:
            raise UserError(
                f"the phrases that caption {b} must contain have {needed} tokens, and it has room "
                f"for {steps - length}: ask for fewer, or raise max_length"
            )


def check_banned(phrases: Phrases, banned: Sequence[Sequence[int]]) -> None:
    """UserError for a phrase that cannot be written without a banned word."""
    for tokens, lengths in zip(phrases.tokens, phrases.lengths, strict=True):
        for alternatives, own in zip(tokens, lengths, strict=True):
            written = [a[:n].tolist() for a, n in zip(alternatives, own, strict=True) if n]
            if written and all(any(_within(w, text) for w in banned) for text in written):
                raise UserError(
                    f"the phrase of tokens {written[0]} is asked for, and banned as well: do "
                    "without one of them"
                )


def read(phrases: Phrases, history: jax.Array, length: jax.Array, first: int) -> Progress:
    """What history int32 [B,W,H] holds, whose words begin at index `first`."""
    places = jnp.arange(history.shape[-1])
    word = history[:, :, None, None]  # [B,W,1,1,H]
    begins_late = phrases.joins[phrases.tokens[..., 0]][:, None, :, :, None]
    run = (places >= first) & ((places == first) | ~begins_late)
    runs, whole = [], False
    for count in range(phrases.tokens.shape[-1]):
        # run[.., i]: the first count + 1 tokens of an alternative are those up to index i.
        run = (run if count == 0 else jnp.roll(run, 1, -1)) & (
            word == phrases.tokens[:, None, :, :, count, None]
        )
        runs.append(jax.lax.dynamic_index_in_dim(run, length - 1, -1, keepdims=False))
        whole = whole | (run & (phrases.lengths == count + 1)[:, None, :, :, None])
    spoilt = jnp.roll(phrases.joins[history], -1, -1)[:, :, None, None]
    settled = jnp.any(whole & ~spoilt & (places < length - 1), (-2, -1))
    return Progress(jnp.stack(runs, -1), settled, length > first)


def needed(phrases: Phrases, progress: Progress, token: jax.Array, joined: jax.Array) -> jax.Array:
    """int32 [B,W,S]: tokens that are needed yet once `token` [B,1 or W,S] is written, which may go
    on with the word before it, `joined` [B,1 or W,S] or [S]. Of no phrase's: NONE."""
    tokens = phrases.tokens[:, None, None]
    same = (token[..., None, None, None] == tokens) & (tokens != NONE)  # [B,W,S,C,A,L]
    begins = ~phrases.joins[phrases.tokens[..., :1]][:, None, None] | ~progress.begun
    before = progress.prefix[:, :, None]
    begins = jnp.broadcast_to(begins, (*before.shape[:-1], 1))
    now = same & jnp.concatenate([begins, before[..., :-1]], -1)
    left = phrases.lengths[..., None] - 1 - jnp.arange(phrases.tokens.shape[-1])  # [B,C,A,L]
    last = (left == 0)[:, None, None]
    ends, ended = jnp.any(now & last, (-2, -1)), jnp.any(before & last, (-2, -1))  # [B,W,S or 1,C]
    wanted = phrases.shortest[:, None, None]
    met = progress.settled[:, :, None] | (ended & ~joined[..., None]) | ends
    spared = jnp.where(now, (phrases.shortest[..., None, None] - left)[:, None, None], 0)
    spared = jnp.where(met, 0, spared.max((-2, -1)))
    return jnp.sum(jnp.where(met, 0, wanted), -1) - jnp.maximum(spared.max(-1), 0)


def _rounded(size: int) -> int:
    return 1 << max(size - 1, 0).bit_length()


def _within(word: Sequence[int], text: Sequence[int]) -> bool:
    places = range(len(text) - len(word) + 1)
    return any(list(text[i : i + len(word)]) == list(word) for i in places)


def _contains(text: list[int], phrases: Phrases, b: int, c: int) -> bool:
    """Whether `text` contains the phrase, and nothing can spoil it any more."""
    for alternative, length in zip(phrases.tokens[b, c], phrases.lengths[b, c], strict=True):
        for i in range(len(text) - length + 1 if length else 0):
            begins = i == 0 or not phrases.joins[text[i]]
            # The end of a prompt may go on as another word.
            ends = i + length < len(text) and not phrases.joins[text[i + length]]
            if begins and ends and text[i : i + length] == alternative[:length].tolist():
                return True
    return False
