"""What guidance did to a caption, token by token: one picture at several guidance scales.

    context = captioner.encode(picture[None]).context       once for all scales
    explained = explain(captioner, context, (1.0, 2.0))
    explained[1].words[0].information                        nats that the picture adds

A caption is searched for, then read again by both branches, the one that sees the picture and the
one that does not. Guidance ranks tokens by log p(w) + gamma (log p(w | picture) - log p(w))
(guiding, arXiv 2307.16686, section 3.1), so the difference in brackets says which words it favours.
Beside each token stands the one that greedy decoding without guidance would write after the same
beginning: where they are the same, guidance changed nothing.

Letters: G guidance scales, T positions, C context tokens, E their width, V vocabulary.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax import special_tokens
from capjax.data.token_rows import TokenRows
from capjax.decode.captioner import Captioner
from capjax.decode.options import Options
from capjax.decode.search import search, without_picture


class Token(NamedTuple):
    """One token of a caption. Log-probabilities in nats, all after the same beginning."""

    text: str  # its part of the caption, with the space before it; "" for the end
    log_prob: float  # log p(token | picture)
    unconditional: float  # log p(token) without the picture
    plain: str  # what greedy decoding without guidance would add here; "" for the end
    plain_log_prob: float  # log p of that, given the picture
    differs: bool  # it would write another token
    ends: bool  # it is the end of the caption

    @property
    def information(self) -> float:
        """log p(token | picture) - log p(token): guidance favours tokens where it is large."""
        return self.log_prob - self.unconditional


class Word(NamedTuple):
    """The tokens that make up one word; the end of the caption is a word without text."""

    tokens: tuple[Token, ...]

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens).strip()

    @property
    def log_prob(self) -> float:
        """log p(word | picture), in nats."""
        return sum(token.log_prob for token in self.tokens)

    @property
    def information(self) -> float:
        """log p(word | picture) - log p(word), in nats."""
        return sum(token.information for token in self.tokens)

    @property
    def instead(self) -> Token | None:
        """The first of its tokens in whose place plain decoding would write another."""
        return next((token for token in self.tokens if token.differs), None)


@dataclass(frozen=True)
class Explained:
    """A caption at one guidance scale."""

    scale: float
    text: str
    log_prob: float  # log p(text | picture), in nats
    truncated: bool  # it reached the longest length without an end
    tokens: tuple[Token, ...]  # up to the end, it included

    @property
    def words(self) -> tuple[Word, ...]:
        return words(self.tokens)


class Reading(NamedTuple):
    """What a captioner says about texts, token by token: each [G,T], or of one text [T]."""

    conditional: jax.Array  # float32: log p(token | picture)
    unconditional: jax.Array  # float32: log p(token)
    plain: jax.Array  # int32: the likeliest token given the picture
    plain_log_prob: jax.Array  # float32: log p of that


def explain(
    captioner: Captioner,
    context: Any,
    scales: Sequence[float],
    options: Options | None = None,
    *,
    rng: jax.Array | None = None,
) -> list[Explained]:
    """One caption of a picture at each scale, searched for side by side; of beams the best.

    context: [1,C,E] of `Captioner.encode`, or a tree of such arrays. rng: for sampling, one key;
    all scales draw with it, so that captions differ by the scale and not by chance.

    Raises UserError for what `search` refuses.
    """
    model, params, tokenizer = captioner.model, captioner.params, captioner.tokenizer
    rows = len(scales)
    keys = None if rng is None else jnp.stack([rng] * rows)
    found = search(
        model,
        params,
        jax.tree.map(lambda x: jnp.repeat(x, rows, 0), context),
        np.asarray(scales, np.float32),
        options,
        rng=keys,
    )
    tokens = found.tokens[:, 0]
    reading = read(model, params, context, tokens)
    found, tokens, reading = jax.device_get((found, tokens, reading))
    explained = []
    for row, scale in enumerate(scales):
        ids = _up_to_end(tokens[row].tolist(), tokenizer.special_tokens.eos)
        explained.append(
            Explained(
                float(scale),
                tokenizer.decode(ids),
                float(found.log_prob[row, 0]),
                bool(found.truncated[row, 0]),
                spell(tokenizer, ids, Reading(*(x[row] for x in reading))),
            )
        )
    return explained


def read(model: nn.Module, params: Any, context: Any, tokens: jax.Array) -> Reading:
    """Both branches' log-probabilities of tokens int32 [G,T], written about context [1,C,E].

    A row's values behind its EOS mean nothing.
    """
    eos = special_tokens.of(model).eos
    written = np.asarray(tokens) != eos
    longest = min(int(np.cumprod(written, 1).sum(1).max(initial=0)) + 1, tokens.shape[1])
    blind = without_picture(model, params, context)
    return _read(model, params, context, blind, jnp.asarray(tokens), longest)


@functools.partial(jax.jit, static_argnums=0)
def _read(model: nn.Module, params, context, blind, tokens: jax.Array, longest) -> Reading:
    rows, length = tokens.shape
    special = special_tokens.of(model)
    # What no search writes is not what plain decoding would write either.
    possible = jnp.ones(model.vocab_size, bool).at[jnp.array(special.never_written, int)].set(False)

    def decoder(method, *args):
        return model.apply({"params": params}, *args, method=method)

    def step(position, carry):
        fed, state, reading = carry
        logits, state = decoder("decode_step", jnp.tile(fed, 2), position, state)
        log_p = jax.nn.log_softmax(logits).reshape(2, rows, -1)
        plain = jnp.argmax(jnp.where(possible, log_p[0], -jnp.inf), -1).astype(jnp.int32)
        token = tokens[:, position]
        now = (_at(log_p[0], token), _at(log_p[1], token), plain, _at(log_p[0], plain))
        kept = (old.at[:, position].set(new) for old, new in zip(reading, now, strict=True))
        return token, state, Reading(*kept)

    # Each branch begins once for all scales.
    both = jax.tree.map(lambda *branches: jnp.concatenate(branches), context, blind)
    state = jax.tree.map(lambda x: jnp.repeat(x, rows, 0), decoder("start_decoding", both))
    first = jnp.full(rows, special.start, jnp.int32)
    nothing = jnp.zeros((rows, length))
    reading = Reading(nothing, nothing, jnp.zeros((rows, length), jnp.int32), nothing)
    return jax.lax.fori_loop(0, longest, step, (first, state, reading))[2]


def words(tokens: Sequence[Token]) -> tuple[Word, ...]:
    """Tokens joined into words: one that brings a space begins a word, and so does the end."""
    groups: list[list[Token]] = []
    for token in tokens:
        if not groups or token.text[:1].isspace() or token.ends:
            groups.append([])
        groups[-1].append(token)
    return tuple(Word(tuple(group)) for group in groups)


def spell(tokenizer: TokenRows, ids: Sequence[int], reading: Reading) -> tuple[Token, ...]:
    """Each id of a caption with its part of the text and what was read [T]; the parts make up the
    text. Ids end with EOS, or where the caption was cut off."""
    texts = [tokenizer.decode(ids[:count]) for count in range(len(ids) + 1)]
    # How much of the text stands after each token. What a beginning shows of half a character, or
    # of a space at its end, is not how it goes on.
    reach = [_shared(text, texts[-1]) for text in texts]
    told = []
    for place, token in enumerate(ids):
        plain = int(reading.plain[place])
        other = tokenizer.decode([*ids[:place], plain])
        told.append(
            Token(
                texts[-1][reach[place] : reach[place + 1]],
                float(reading.conditional[place]),
                float(reading.unconditional[place]),
                other[_shared(texts[place], other) :],
                float(reading.plain_log_prob[place]),
                plain != token,
                token == tokenizer.special_tokens.eos,
            )
        )
    return tuple(told)


def _shared(one: str, other: str) -> int:
    """How many characters two texts share at their beginning."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _up_to_end(ids: list[int], eos: int) -> list[int]:
    return ids[: ids.index(eos) + 1] if eos in ids else ids


def _at(log_p: jax.Array, tokens: jax.Array) -> jax.Array:
    """[G,V] at [G] -> [G]."""
    return jnp.take_along_axis(log_p, tokens[:, None], 1)[:, 0]
