"""METEOR's alignment: which of the competing matches of two captions to take.

A match that competes with no other for a word is certain, and METEOR takes it beforehand. Among the
others, which are open, its beam search chooses (`beam`). This file prepares that search: it parts
each reference into steps. A step is a word that open matches cover, or a whole stretch of words
that they leave alone: in such a stretch all paths of the search fare alike, but for what its first
word means to the chunk before it.

Legend: P pairs of captions, M matches, A open matches, S steps of all pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from capjax.metrics.meteor.matching import EXACT, Matches
from capjax.metrics.meteor.ragged import expand, starts

_BITS = 64  # of a word of a path's memory


class Steps(NamedTuple):
    """The search that is left to do. Places are words of the reference, counted from 0."""

    first: np.ndarray  # int64 [P + 1]: the steps of pair p are first[p] and on; certain pairs: none
    place: np.ndarray  # int64 [S]: the word, or the first one of a stretch
    stretch: np.ndarray  # bool [S]
    begins: np.ndarray  # int64 [S]: the word of the candidate that a stretch begins with, or -1
    ends: np.ndarray  # int64 [S]: the word of the candidate behind the stretch's last one, or -1
    first_choice: np.ndarray  # int64 [S]: from where on the open matches can be chosen
    choices: np.ndarray  # int64 [S]: how many they are


class Open(NamedTuple):
    """Open matches, as the search sees them."""

    gain: np.ndarray  # int64 [A]: what it adds to the words in matches
    distance: np.ndarray  # int64 [A]: between its places in both captions
    begins: np.ndarray  # int64 [A]: in the candidate
    ends: np.ndarray  # int64 [A]: behind it, in the candidate
    next_place: np.ndarray  # int64 [A]: behind it, in the reference
    takes: list[np.ndarray]  # uint64 [A] each: the candidate's words that it takes, a bit each


def certain_matches(
    matches: Matches, reference_lengths: np.ndarray, candidate_lengths: np.ndarray
) -> np.ndarray:
    """Which matches share no word with another: bool [M]. Lengths of the captions are [P]."""
    certain = np.ones(len(matches.pair), bool)
    for first, start, length in (
        (starts(reference_lengths), matches.reference_start, matches.reference_length),
        (starts(candidate_lengths), matches.candidate_start, matches.candidate_length),
    ):
        match, word = expand(first[matches.pair] + start, length)
        certain[match[np.bincount(word, minlength=1)[word] > 1]] = False
    return certain


def prepare(
    matches: Matches,
    certain: np.ndarray,
    reference_lengths: np.ndarray,
    candidate_lengths: np.ndarray,
) -> tuple[Steps, Open]:
    """The steps of all pairs, and the matches that are not certain."""
    left = matches.take(np.flatnonzero(~certain))
    return (
        _steps(left, matches.take(np.flatnonzero(certain)), reference_lengths),
        _open(left, candidate_lengths),
    )


def _steps(left: Matches, sure: Matches, reference_lengths: np.ndarray) -> Steps:
    # One place more than words: behind the last word every path closes its chunk.
    first = starts(reference_lengths + 1)
    places = int(first[-1])
    pair = np.repeat(np.arange(len(reference_lengths)), reference_lengths + 1)
    here = first[left.pair] + left.reference_start
    contested = np.zeros(places, bool)
    contested[expand(here, left.reference_length)[1]] = True
    begins, ends = np.full((2, places), -1)
    sure_here = first[sure.pair] + sure.reference_start
    begins[sure_here] = sure.candidate_start
    match, word = expand(sure_here, sure.reference_length)
    ends[word] = (sure.candidate_start + sure.candidate_length)[match]

    is_step = contested.copy()
    is_step[1:] |= contested[:-1]
    is_step[first[:-1]] = True
    searched = np.zeros(len(reference_lengths), bool)
    searched[left.pair] = True
    step = np.flatnonzero(is_step & searched[pair])
    last = np.minimum(np.append(step[1:], places), first[1:][pair[step]]) - 1
    first_choice = np.searchsorted(here, step)
    return Steps(
        first=np.searchsorted(step, first),
        place=step - first[pair[step]],
        stretch=~contested[step],
        begins=begins[step],
        ends=ends[last],
        first_choice=first_choice,
        choices=np.searchsorted(here, step, side="right") - first_choice,
    )


def _open(left: Matches, candidate_lengths: np.ndarray) -> Open:
    # METEOR adds half of a match's words to a whole number and cuts the half off, at each caption.
    exact = left.module == EXACT
    gain = left.reference_length // 2 + left.candidate_length // 2
    first = starts(candidate_lengths)
    there = first[left.pair] + left.candidate_start
    contested = np.zeros(first[-1] + 1, np.int64)
    contested[expand(there, left.candidate_length)[1]] = 1
    number = np.cumsum(contested) - contested  # of the contested words of all candidates
    bit = number[there] - number[first[left.pair]]
    match, taken = expand(bit, left.candidate_length)
    takes = []
    for low in range(0, int(taken.max(initial=0)) + 1, _BITS):
        word = np.zeros(len(bit), np.uint64)
        inside = (taken >= low) & (taken < low + _BITS)
        np.bitwise_or.at(
            word, match[inside], np.uint64(1) << (taken[inside] - low).astype(np.uint64)
        )
        takes.append(word)
    return Open(
        gain=np.where(exact, 2, gain),
        distance=np.abs(left.reference_start - left.candidate_start),
        begins=left.candidate_start,
        ends=left.candidate_start + left.candidate_length,
        next_place=left.reference_start + left.reference_length,
        takes=takes,
    )
