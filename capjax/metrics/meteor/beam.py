"""METEOR's beam search over the steps of `alignment`, for thousands of pairs of captions at once.

The alignment with the most words in matches is best (a stem, a synonym or a paraphrase of n words
counts n // 2), then the one with the fewest chunks, then the one with the shortest distance. A
search walks through the reference and keeps the 40 best paths. At each contested word a path goes
on with each of the matches that start there and whose words are free, and also with none.

METEOR's scores include what the beam loses and how ties break, so that the very same paths must be
kept, in the same order. Two habits of the program therefore belong to the definition: what is
equally good stays in the order in which it was made (matches in their order, then none of them);
and a path pays the distance of the matches tried before its own, but not that of its own.

Legend: R paths of all pairs of a batch, sorted by pair and then best first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from capjax.metrics.meteor.alignment import Open, Steps
from capjax.metrics.meteor.ragged import expand

BEAM = 40
_WIDTH = 1 << 20  # most paths that a step of a batch may make


class Paths(NamedTuple):
    """Paths of a batch of pairs; all [R]."""

    pair: np.ndarray  # int64: within the batch
    gain: np.ndarray  # int64: words in matches
    chunks: np.ndarray  # int64: closed ones
    distance: np.ndarray  # int64
    end: np.ndarray  # int64: the candidate's word behind the open chunk, -1 without one
    place: np.ndarray  # int64: the reference's word to go on with
    trail: np.ndarray  # int64: its last match, as a place in the trail; -1 for none
    used: tuple[np.ndarray, ...]  # uint64 each: the candidate's words in its matches, a bit each

    def take(self, index: np.ndarray) -> Paths:
        *columns, used = self
        return Paths(*(column[index] for column in columns), tuple(bits[index] for bits in used))


def search(steps: Steps, matches: Open) -> np.ndarray:
    """The chosen ones among the open matches: int64 [chosen], places in `matches`."""
    chosen = [_search_batch(steps, matches, pairs) for pairs in _batches(steps)]
    return np.concatenate([*chosen, np.zeros(0, np.int64)])


def _batches(steps: Steps) -> Iterator[np.ndarray]:
    """Yields pairs that are searched together, those with the most steps first."""
    count = np.diff(steps.first)
    pairs = np.flatnonzero(count)
    if not len(pairs):
        return
    width = BEAM * (1 + np.maximum.reduceat(steps.choices, steps.first[pairs]))
    order = np.argsort(-count[pairs], kind="stable")
    batch = np.cumsum(width[order]) // _WIDTH
    yield from np.split(pairs[order], np.flatnonzero(np.diff(batch)) + 1)


def _search_batch(steps: Steps, matches: Open, pairs: np.ndarray) -> np.ndarray:
    first, count = steps.first[pairs], np.diff(steps.first)[pairs]
    zero = np.zeros(len(pairs), np.int64)
    paths = Paths(
        pair=np.arange(len(pairs)),
        gain=zero,
        chunks=zero,
        distance=zero,
        end=zero - 1,
        place=zero,
        trail=zero - 1,
        used=tuple(np.zeros(len(pairs), np.uint64) for _ in matches.takes),
    )
    trail_parent, trail_match, trail_length = [], [], 0
    winners = np.full(len(pairs), -1)
    for number in range(int(count[0]) + 1):
        going_on = np.searchsorted(-count, -number)  # pairs with more than `number` steps
        stop = np.searchsorted(paths.pair, going_on)
        done, at = np.unique(paths.pair[stop:], return_index=True)
        winners[done] = paths.trail[stop:][at]
        if not going_on:
            break
        paths, match = _advance(paths.take(np.arange(stop)), steps, matches, first + number)
        kept = _best(paths, going_on)
        paths, match = paths.take(kept), match[kept]
        new = np.flatnonzero(match >= 0)
        trail_parent.append(paths.trail[new])
        trail_match.append(match[new])
        paths.trail[new] = np.arange(trail_length, trail_length + len(new))
        trail_length += len(new)
    return _follow(winners, np.concatenate(trail_parent), np.concatenate(trail_match))


def _advance(
    paths: Paths, steps: Steps, matches: Open, step_of_pair: np.ndarray
) -> tuple[Paths, np.ndarray]:
    """All continuations of the paths by one step, in METEOR's order, and their matches or -1."""
    step = step_of_pair[paths.pair]
    waits = ~steps.stretch[step] & (paths.place > steps.place[step])  # amid a paraphrase
    choices = np.where(waits, 0, steps.choices[step])
    parent, match = expand(steps.first_choice[step], choices + 1)
    last = np.cumsum(choices + 1) - 1  # of the continuations of a path: the one without a match
    match[last] = -1

    tried = np.flatnonzero(match >= 0)
    free = np.ones(len(tried), bool)
    for used, takes in zip(paths.used, matches.takes, strict=True):
        free &= (used[parent[tried]] & takes[match[tried]]) == 0
    cost = np.zeros(len(parent), np.int64)
    cost[tried[free]] = matches.distance[match[tried[free]]]
    paid = np.cumsum(cost) - cost  # by the continuations before
    paid -= paid[last - choices][parent]
    goes_on = np.ones(len(parent), bool)
    goes_on[tried[~free]] = False
    parent, match, paid = parent[goes_on], match[goes_on], paid[goes_on]

    new = paths.take(parent)
    new.distance[:] += paid
    with_match = np.flatnonzero(match >= 0)
    taken = match[with_match]
    without = np.flatnonzero((match < 0) & ~waits[parent])
    step = step[parent[without]]
    for index, begins, ends in (
        (with_match, matches.begins[taken], matches.ends[taken]),
        (without, steps.begins[step], steps.ends[step]),
    ):
        end = new.end[index]
        new.chunks[index] += (end >= 0) & (end != begins)
        new.end[index] = ends
    new.gain[with_match] += matches.gain[taken]
    new.place[with_match] = matches.next_place[taken]
    for used, takes in zip(new.used, matches.takes, strict=True):
        used[with_match] |= takes[taken]
    return new, match


def _best(paths: Paths, pairs: int) -> np.ndarray:
    """The best paths of each pair, at most 40, in order: places in `paths`."""
    columns = (paths.pair, paths.gain.max() - paths.gain, paths.chunks, paths.distance)
    sizes = [int(column.max()) + 1 for column in columns]
    if math.prod(sizes) < 1 << 62:
        key = columns[0]
        for column, size in zip(columns[1:], sizes[1:], strict=True):
            key = key * size + column
        order = np.argsort(key, kind="stable")
    else:  # captions of thousands of words
        order = np.lexsort(columns[::-1])
    count = np.bincount(paths.pair, minlength=pairs)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    return order[rank < BEAM]


def _follow(winners: np.ndarray, parent: np.ndarray, match: np.ndarray) -> np.ndarray:
    """The matches on the trails that end at `winners`."""
    chosen = []
    while len(winners := winners[winners >= 0]):
        chosen.append(match[winners])
        winners = parent[winners]
    return np.concatenate([*chosen, np.zeros(0, np.int64)])
