"""The words and phrases of a set of captions, numbered, and which of them METEOR takes as equal.

An item is a word, or a phrase of several words that stands in some caption and has a paraphrase in
another. Two items are related if METEOR may match them although they differ: two words by a common
stem or a common WordNet synset, any two items by the paraphrase table. Relations are few: they are
found once for the set, and not for each pair of captions.

Legend: T words of all captions together, V different words, I items (the V words first), O places
of items, Q related pairs of items.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from capjax.metrics import meteor_files, wordnet
from capjax.metrics.meteor import paraphrases
from capjax.metrics.meteor.ragged import expand, pairs_within, starts
from capjax.metrics.meteor.stemmer import stem

_BITS_PER_RELATION = 16  # so that few unrelated pairs pass the filter
_MAX_FILTER = 1 << 27


class Places(NamedTuple):
    """Where items stand, in the order of the captions; those of caption s are first[s] and on."""

    position: np.ndarray  # int64 [O]: of the first word within the caption
    item: np.ndarray  # int64 [O]
    length: np.ndarray  # int64 [O]: words
    first: np.ndarray  # int64 [captions + 1]


class Relations(NamedTuple):
    """Related pairs. A rank is a paraphrase's place among those of its phrase, -1 if it is none."""

    keys: np.ndarray  # int64 [Q], sorted: item * I + other item
    stem: np.ndarray  # bool [Q]
    synonym: np.ndarray  # bool [Q]
    rank: np.ndarray  # int32 [Q]: of the other item among the paraphrases of the item
    reverse_rank: np.ndarray  # int32 [Q]: of the item among the paraphrases of the other


class Lexicon:
    """The items of captions given as lists of words.

    Attributes:
      lengths: int64 [captions].
      words: int32 [T], the captions' words end to end; caption s is first_word[s] and on.
      function: bool [V], the words that METEOR takes as function words.
    """

    def __init__(self, captions: Sequence[Sequence[str]]):
        numbers: dict[str, int] = {}
        for caption in captions:
            for word in caption:
                if word not in numbers:
                    numbers[word] = len(numbers)
        self.lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        self.first_word = starts(self.lengths)
        self.words = np.fromiter(
            (numbers[word] for caption in captions for word in caption),
            np.int32,
            self.first_word[-1],
        )
        self.vocabulary = list(numbers)
        known = function_words()
        self.function = np.array([word in known for word in self.vocabulary], bool)
        self._find_items()
        self._filter_relations()

    def may_match(self, hashes: np.ndarray) -> np.ndarray:
        """Whether items are equal or related, by hash[item] ^ hash[other]; wrongly yes at times."""
        return self._filter[hashes]

    def find(self, item: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which pairs are related, and their places in `relations`."""
        keys = self.relations.keys
        if not len(keys):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        wanted = item * np.int64(self.items) + other
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        related = np.flatnonzero(keys[place] == wanted)
        return related, place[related]

    def _find_items(self) -> None:
        table = paraphrases.load()
        numbers = paraphrases.vocabulary()
        words = len(self.vocabulary)
        in_table = np.fromiter((numbers.get(word, -1) for word in self.vocabulary), np.int64, words)
        caption = np.repeat(np.arange(len(self.lengths)), self.lengths)
        left = self.first_word[caption + 1] - np.arange(len(self.words))
        phrases = _phrases_in(table, in_table[self.words], left)
        nodes = np.unique(np.concatenate([node for _, node in phrases]))
        nodes = np.concatenate([np.where(in_table >= 0, in_table + 1, -1), nodes])
        one, other, rank = _paraphrases_among(table, nodes)

        # Of the phrases keep those with a paraphrase in the captions, and number them anew.
        kept = np.arange(len(nodes)) < words
        kept[one] = kept[other] = True
        number = np.where(kept, np.cumsum(kept) - 1, -1)
        self.items = int(np.count_nonzero(kept))
        self.relations = _relations(self.vocabulary, self.items, number[one], number[other], rank)

        at = [np.arange(len(self.words))]
        item = [self.words.astype(np.int64)]
        for places, node in phrases:
            at.append(places)
            item.append(number[words + np.searchsorted(nodes[words:], node)])
        length = np.repeat(np.arange(1, len(at) + 1), list(map(len, at)))
        at, item = np.concatenate(at), np.concatenate(item)
        order = np.argsort(at, kind="stable")
        order = order[item[order] >= 0]
        at = at[order]
        self.places = Places(
            position=at - self.first_word[caption[at]],
            item=item[order],
            length=length[order],
            first=np.searchsorted(at, self.first_word),
        )

    def _filter_relations(self) -> None:
        """A table of bits that tells most unrelated pairs of items from related ones at once."""
        size = 1 << 10
        while size < min(len(self.relations.keys) * _BITS_PER_RELATION, _MAX_FILTER):
            size *= 2
        chance = np.random.default_rng(0)
        self.hash = chance.integers(size, size=self.items, dtype=np.uint32)
        self._filter = np.zeros(size, bool)
        self._filter[0] = True  # an item and itself
        item, other = np.divmod(self.relations.keys, max(self.items, 1))
        self._filter[self.hash[item] ^ self.hash[other]] = True


@functools.cache
def function_words() -> frozenset[str]:
    return frozenset(meteor_files.member("function/english.words").splitlines())


def _phrases_in(
    table: paraphrases.Paraphrases, words: np.ndarray, left: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For 2 to 7 words, where a phrase of the table's tree stands, and its node.

    Args:
      words: the table's numbers of all captions' words, -1 for words that it does not have: [T].
      left: how many words are left in the caption, this one counted: [T].
    """
    at, node = np.arange(len(words)), np.zeros(len(words), np.int64)
    found = []
    for level in range(1, paraphrases.LONGEST + 1):
        longer = left[at] >= level
        at, node = at[longer], node[longer]
        node = table.children(node, words[at + level - 1], level)
        at, node = at[node >= 0], node[node >= 0]
        found.append((at, node))
    return found[1:]


def _paraphrases_among(table: paraphrases.Paraphrases, nodes: np.ndarray):
    """Which of these nodes are paraphrases of which: (index of one, index of other, rank)."""
    index = np.full(table.level_start[-1] + 1, -1, np.int32)  # the last one stands for node -1
    index[nodes] = np.arange(len(nodes))
    index[-1] = -1
    place = np.minimum(np.searchsorted(table.sources, nodes), len(table.sources) - 1)
    one = np.flatnonzero(table.sources[place] == nodes)
    first = table.first[place[one]]
    owner, pair = expand(first, table.first[place[one] + 1] - first)
    other = index[table.targets[pair]]
    present = other >= 0
    return one[owner[present]], other[present], (pair - first[owner])[present]


def _relations(
    vocabulary: list[str], items: int, one: np.ndarray, other: np.ndarray, rank: np.ndarray
) -> Relations:
    """All relations, given the paraphrases."""
    stems: dict[str, int] = {}
    stem_pairs = pairs_within(
        np.array([stems.setdefault(stem(word), len(stems)) for word in vocabulary], np.int64)
    )
    synsets = list(map(wordnet.load().synsets, vocabulary))
    word = np.repeat(np.arange(len(synsets)), [len(numbers) for numbers in synsets])
    pairs = pairs_within(np.array([n for numbers in synsets for n in numbers], np.int64))
    synonym_pairs = [word[side] for side in pairs]
    different = synonym_pairs[0] != synonym_pairs[1]
    synonym_pairs = [side[different] for side in synonym_pairs]

    paraphrase_pairs = (one, other)
    kinds = (stem_pairs, synonym_pairs, paraphrase_pairs, paraphrase_pairs[::-1])
    keys, place = np.unique(
        np.concatenate([side[0] * np.int64(items) + side[1] for side in kinds]),
        return_inverse=True,
    )
    places = np.split(place, np.cumsum([len(pair[0]) for pair in kinds])[:-1])
    marks = [np.zeros(len(keys), bool), np.zeros(len(keys), bool)]
    ranks = [np.full(len(keys), -1, np.int32), np.full(len(keys), -1, np.int32)]
    marks[0][places[0]] = True
    marks[1][places[1]] = True
    ranks[0][places[2]] = rank
    ranks[1][places[3]] = rank
    return Relations(keys, *marks, *ranks)
