"""Captions made ungrammatical, as negatives for a judge of grammar (arXiv 2205.13115, section 3.2).

One of five, drawn alike often; sizes and counts are 1 to 3 each:

    repeat    an n-gram stands once or several times more, behind itself
    remove    an n-gram is gone
    insert    random tokens between the words
    swap      random tokens in the place of words, others than these
    shuffle   the words in another order

An n-gram is no longer than the caption, and a caption of one word is swapped where it was to be
shuffled. What exceeds the row is cut before EOS. A pure function of a key, inside the step.

Letters: B captions, L positions of a row, M = L - 2 places for words, n words of a caption.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from capjax.special_tokens import SpecialTokens

KINDS = ("repeat", "remove", "insert", "swap", "shuffle")
MOST = 3  # of a size or a count


def corrupt(
    rng: jax.Array, tokens: jax.Array, special: SpecialTokens, vocab_size: int
) -> jax.Array:
    """Rows int32 [B,L] of other captions, corrupted in any of the five ways."""
    choose, rng = jax.random.split(rng)
    kinds = jax.random.randint(choose, tokens.shape[:1], 0, len(KINDS))
    return corrupt_by(rng, tokens, kinds, special, vocab_size)


def corrupt_by(
    rng: jax.Array, tokens: jax.Array, kinds: jax.Array, special: SpecialTokens, vocab_size: int
) -> jax.Array:
    """The same by chosen kinds, int32 [B]: places in `KINDS`."""
    words = np.setdiff1d(np.arange(vocab_size), [*special.never_written, special.eos, special.pad])
    functions = [_repeat, _remove, _insert, _swap, _shuffle]
    room = tokens.shape[1] - 2
    place = jnp.arange(room)

    def one(key: jax.Array, row: jax.Array, kind: jax.Array) -> jax.Array:
        count = jnp.sum(special.to_write(row) & (row[1:] != special.eos))
        alone = (kind == KINDS.index("shuffle")) & (count < 2)
        kind = jnp.where(alone, KINDS.index("swap"), kind)
        body, length = jax.lax.switch(kind, functions, key, row[1:-1], count, jnp.array(words))
        body = jnp.where(place < length, body, special.pad)
        length = jnp.minimum(length, room)
        rest = jnp.concatenate([body, jnp.full(1, special.pad, row.dtype)])
        return jnp.concatenate([row[:1], rest.at[length].set(special.eos)])

    keys = jax.vmap(lambda b: jax.random.fold_in(rng, b))(jnp.arange(len(tokens)))
    return jax.vmap(one)(keys, tokens, kinds)


def _size(key: jax.Array, count: jax.Array) -> jax.Array:
    """1 to 3, at most `count`."""
    return jnp.clip(jax.random.randint(key, (), 1, MOST + 1), 1, jnp.maximum(count, 1))


def _start(key: jax.Array, count: jax.Array, size: jax.Array) -> jax.Array:
    return jax.random.randint(key, (), 0, jnp.maximum(count - size, 0) + 1)


def _drawn(key: jax.Array, words: jax.Array, shape: tuple[int, ...], other: jax.Array | None):
    """Random words [shape], none that stands in `other` at its place."""
    index = jax.random.randint(key, shape, 0, len(words))
    found = words[index]
    if other is None:
        return found
    return jnp.where(found == other, words[(index + 1) % len(words)], found)


def _repeat(key, body, count, words):
    sizes, starts, times = jax.random.split(key, 3)
    size = _size(sizes, count)
    start, more = _start(starts, count, size), jax.random.randint(times, (), 1, MOST + 1) * size
    place = jnp.arange(len(body))
    copied = start + (place - start) % size
    behind = jnp.where(place < start + size + more, copied, place - more)
    return body[jnp.where(place < start, place, behind)], count + more


def _remove(key, body, count, words):
    sizes, starts = jax.random.split(key)
    size = _size(sizes, count - 1)
    start = _start(starts, count, size)
    place = jnp.arange(len(body))
    kept = jnp.where(place < start, place, jnp.minimum(place + size, len(body) - 1))
    return body[kept], count - size


def _insert(key, body, count, words):
    counts, gaps, which = jax.random.split(key, 3)
    more = jax.random.randint(counts, (), 1, MOST + 1)
    gap = jax.random.randint(gaps, (MOST,), 0, count + 1)
    gap = jnp.sort(jnp.where(jnp.arange(MOST) < more, gap, len(body) + MOST)) + jnp.arange(MOST)
    place = jnp.arange(len(body))
    new = jnp.any(place[:, None] == gap, 1)
    before = jnp.sum(gap[None] < place[:, None], 1)
    return jnp.where(
        new, _drawn(which, words, body.shape, None), body[place - before]
    ), count + more


def _swap(key, body, count, words):
    counts, places, which = jax.random.split(key, 3)
    more = _size(counts, count)
    chosen = _order(places, body, count) < more
    return jnp.where(chosen, _drawn(which, words, body.shape, body), body), count


def _shuffle(key, body, count, words):
    place = jnp.arange(len(body))
    order = jnp.where(place < count, _order(key, body, count), place)
    turned = jnp.where(place < count, (place + 1) % jnp.maximum(count, 1), place)
    return body[jnp.where(jnp.all(order == place), turned, order)], count


def _order(key: jax.Array, body: jax.Array, count: jax.Array) -> jax.Array:
    """[M]: a random order of the first `count` places, the others behind."""
    values = jax.random.uniform(key, body.shape)
    return jnp.argsort(jnp.argsort(jnp.where(jnp.arange(len(body)) < count, values, 2.0)))
