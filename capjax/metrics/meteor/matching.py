"""All matches between candidate and reference: equal words, stems, synonyms, paraphrases.

A match joins neighbouring words of the reference to neighbouring words of the candidate, one to
one unless it is a paraphrase. Matches may compete for words; `alignment` chooses among them, and
where choices are equally good the order of the matches decides. So the order here is METEOR's.

For each pair of captions every item of one is compared with every item of the other: 50 million
comparisons on the captions of Flickr30k, most of which end at one look-up in a table of bits.

Known difference from the original: it compares words by their 32-bit hashes, so that some unlike
words, such as "20s" and "225", are equal to it. Here they are not.

Legend: P pairs of captions, M matches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from capjax.metrics.meteor.lexicon import Lexicon
from capjax.metrics.meteor.ragged import expand

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)  # the modules, in METEOR's order
_COMPARISONS = 1 << 21  # at a time


class Matches(NamedTuple):
    """Matches, sorted by pair, then by start in the reference, then in METEOR's order.

    Starts are places in the caption. All int64 [M].
    """

    pair: np.ndarray
    reference_start: np.ndarray
    reference_length: np.ndarray
    candidate_start: np.ndarray
    candidate_length: np.ndarray
    module: np.ndarray

    def take(self, index: np.ndarray) -> Matches:
        return Matches(*(column[index] for column in self))


def find_matches(lexicon: Lexicon, candidate: np.ndarray, reference: np.ndarray) -> Matches:
    """The matches of pairs of captions, both [P]: the captions' numbers in the lexicon."""
    hits = list(_hits(lexicon, candidate, reference))
    pair, one, other = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    places = lexicon.places
    item, other_item = places.item[one], places.item[other]
    equal = item == other_item
    exact = np.flatnonzero(equal & (places.length[one] == 1))
    # Two equal captions need no other match; METEOR says so to help its search.
    differ = np.flatnonzero(~equal & ~_equal_captions(lexicon, candidate, reference)[pair])
    related, relation = lexicon.find(item[differ], other_item[differ])
    related = differ[related]
    stem = lexicon.relations.stem[relation]
    synonym = lexicon.relations.synonym[relation]
    rank = lexicon.relations.rank[relation]  # candidate's item has the reference's as paraphrase
    reverse_rank = lexicon.relations.reverse_rank[relation]

    # Order among the matches that start at the same word of the reference: by module; paraphrases
    # of the reference's phrases first, by the length of that phrase; then those of the candidate's
    # phrases, by where these start.
    start, length = places.position[one], places.length[one]
    reference_length = places.length[other]
    towards, backwards = reverse_rank >= 0, rank >= 0
    t, b = related[towards], related[backwards]
    kinds = [
        (exact, EXACT, _order(0, start[exact])),
        (related[stem], STEM, _order(1, start[related[stem]])),
        (related[synonym], SYNONYM, _order(2, start[related[synonym]])),
        (t, PARAPHRASE, _order(3, reference_length[t], reverse_rank[towards], start[t])),
        (b, PARAPHRASE, _order(4, start[b], length[b], rank[backwards])),
    ]
    hit = np.concatenate([index for index, _, _ in kinds])
    order = np.concatenate([order for _, _, order in kinds])
    module = np.concatenate([np.full(len(index), module) for index, module, _ in kinds])
    sort = np.lexsort((order, places.position[other[hit]], pair[hit]))
    hit = hit[sort]
    return Matches(
        pair=pair[hit],
        reference_start=places.position[other[hit]],
        reference_length=places.length[other[hit]],
        candidate_start=places.position[one[hit]],
        candidate_length=places.length[one[hit]],
        module=module[sort],
    )


def _hits(
    lexicon: Lexicon, candidate: np.ndarray, reference: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (pair, place in the candidate, place in the reference) of items that may match."""
    places = lexicon.places
    hashes = lexicon.hash[places.item]
    count = np.diff(places.first)
    pair, row = expand(places.first[reference], count[reference])  # a row: a place of a reference
    first = places.first[candidate][pair]
    width = count[candidate][pair]
    end = np.cumsum(width)
    total = int(width.sum())
    bounds = np.searchsorted(end, np.arange(0, max(total, 1), _COMPARISONS))
    for begin, stop in zip(bounds, [*bounds[1:], len(row)], strict=True):
        rows = slice(begin, stop)
        row_of_cell, cell = expand(first[rows], width[rows])
        mixed = np.repeat(hashes[row[rows]], width[rows]) ^ hashes[cell]
        hit = np.flatnonzero(lexicon.may_match(mixed))
        row_of_hit = row_of_cell[hit] + begin
        yield pair[row_of_hit], cell[hit], row[row_of_hit]
    yield (np.zeros(0, np.int64),) * 3  # so that there is something to join up


def _equal_captions(lexicon: Lexicon, candidate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Which pairs have the same words in the same order: bool [P]."""
    equal = lexicon.lengths[candidate] == lexicon.lengths[reference]
    some = np.flatnonzero(equal)
    owner, word = expand(lexicon.first_word[candidate[some]], lexicon.lengths[candidate[some]])
    _, other = expand(lexicon.first_word[reference[some]], lexicon.lengths[reference[some]])
    equal[some[owner[lexicon.words[word] != lexicon.words[other]]]] = False
    return equal


def _order(first: int, *others: np.ndarray) -> np.ndarray:
    """Several small numbers as one that sorts as they do: int64."""
    order = np.zeros(len(others[0]), np.int64) + first
    for place in range(3):
        order = order << 20
        if place < len(others):
            order += others[place]
    return order
