"""N-grams of many sentences at once, counted with sorted arrays instead of dictionaries of tuples.

Legend: S sentences, W words in the vocabulary, G distinct n-grams of one order, P distinct
(sentence, n-gram) pairs of one order. Orders run from 1 to 4; lists over orders start with 1.

An n-gram is a number: the row of (its first n-1 words as a number, its last word) among all such
pairs, sorted. So the counts of a corpus are a few flat arrays, and the n-grams of a second corpus
are looked up in those of the first with a binary search.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

MAX_ORDER = 4


class Order(NamedTuple):
    """The n-grams of one length."""

    keys: np.ndarray  # int64 [G], sorted: (number of the first n-1 words) * W + last word
    sentence: np.ndarray  # int32 [P], ascending
    gram: np.ndarray  # int32 [P]: which n-gram, a row of `keys`
    count: np.ndarray  # int32 [P]: how often it stands in that sentence


class NGrams(NamedTuple):
    orders: list[Order]
    vocabulary: dict[str, int]
    lengths: np.ndarray  # int64 [S]: words a sentence


def count_ngrams(
    sentences: Sequence[Sequence[str]], vocabulary: dict[str, int] | None = None
) -> NGrams:
    """Counts the n-grams of `sentences`; words beyond `vocabulary` are numbered after its own."""
    distinct = dict.fromkeys(chain.from_iterable(sentences))
    several = {token for token in distinct if len(token.split()) != 1}
    if several:
        sentences = _without_inner_blanks(sentences, several)
        distinct = dict.fromkeys(chain.from_iterable(sentences))
    vocabulary = dict(vocabulary or {})
    for word in distinct:
        vocabulary.setdefault(word, len(vocabulary))
    lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
    total = int(lengths.sum())
    words = np.fromiter(
        map(vocabulary.__getitem__, chain.from_iterable(sentences)), np.int64, total
    )
    sentence = np.repeat(np.arange(len(sentences)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(total)  # words from here to the end
    orders = []
    prefix = np.zeros(total, np.int64)  # at each place, the number of the n-gram that starts there
    for n in range(1, MAX_ORDER + 1):
        place = np.flatnonzero(left >= n)
        keys, gram = _numbered(prefix[place] * len(vocabulary) + words[place + n - 1])
        pairs, count = _counted(sentence[place] * max(len(keys), 1) + gram)
        orders.append(
            Order(
                keys=keys,
                sentence=(pairs // max(len(keys), 1)).astype(np.int32),
                gram=(pairs % max(len(keys), 1)).astype(np.int32),
                count=count.astype(np.int32),
            )
        )
        prefix[place] = gram
    return NGrams(orders, vocabulary, lengths)


def _numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, sorted, and for each value its row among them."""
    if len(values) and values.max() < 2 * len(values):  # words: no need to sort
        present = np.bincount(values) > 0
        return np.flatnonzero(present), (np.cumsum(present) - 1)[values]
    by_value = np.argsort(values, kind="stable")  # the fastest for integers
    new = _is_new(values[by_value])
    row = np.empty(len(values), np.int64)
    row[by_value] = np.cumsum(new) - 1
    return values[by_value[new]], row


def _counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, sorted, and how often each stands there."""
    values = np.sort(values, kind="stable")  # nearly in order: they begin with the sentence
    start = np.flatnonzero(_is_new(values))
    return values[start], np.diff(start, append=len(values))


def _is_new(values: np.ndarray) -> np.ndarray:
    """Where sorted values differ from the one before."""
    new = np.ones(len(values), bool)
    new[1:] = values[1:] != values[:-1]
    return new


def match_ngrams(
    own: NGrams, vocabulary: dict[str, int], known_keys: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """For each order, the row in `known_keys` of every n-gram of `own`, -1 where none: [G_own].

    `known_keys` are numbered by `vocabulary`, with which `own` must have been counted.
    """
    matches = []
    shorter = np.zeros(1, np.int64)  # the empty n-gram
    for mine, keys in zip(own.orders, known_keys, strict=True):
        prefix, word = np.divmod(mine.keys, max(len(own.vocabulary), 1))
        row = shorter[prefix]
        possible = (row >= 0) & (word < len(vocabulary))
        shorter = np.where(possible, find(keys, row * len(vocabulary) + word), -1)
        matches.append(shorter)
    return matches


def find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The row of each wanted value in the sorted `keys`, -1 where it is not there."""
    if not len(keys):
        return np.full(len(wanted), -1)
    row = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[row] == wanted, row, -1)


def _without_inner_blanks(
    sentences: Sequence[Sequence[str]], several: set[str]
) -> Sequence[Sequence[str]]:
    """BLEU and CIDEr split joined tokens at any white space: to them "1 1/2" is two words."""
    return [
        sentence if several.isdisjoint(sentence) else " ".join(sentence).split()
        for sentence in sentences
    ]
