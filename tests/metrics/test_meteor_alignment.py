"""The batched search against a plain one that follows each path of each pair by itself."""

import copy
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from capjax.metrics.meteor import alignment, beam, scoring
from capjax.metrics.meteor.matching import EXACT, Matches


@dataclass
class Path:
    """One path of the plain search."""

    reference_free: list[bool]
    candidate_free: list[bool]
    gain: int = 0
    chunks: int = 0
    distance: int = 0
    end: int | None = None  # the candidate's word behind the open chunk
    place: int = 0
    taken: list[int] = field(default_factory=list)

    def rank(self):
        return -self.gain, self.chunks, self.distance

    def is_free(self, start, length, there, there_length):
        return all(self.reference_free[start : start + length]) and all(
            self.candidate_free[there : there + there_length]
        )

    def take(self, number, match):
        start, length, there, there_length, _ = match
        self.reference_free[start : start + length] = [False] * length
        self.candidate_free[there : there + there_length] = [False] * there_length
        self.pass_over(match)
        self.taken.append(number)

    def pass_over(self, match):
        start, length, there, there_length, module = match
        self.gain += 2 if module == EXACT else length // 2 + there_length // 2
        self.chunks += self.end is not None and self.end != there
        self.end = there + there_length
        self.place = start + length

    def close_chunk(self):
        self.chunks += self.end is not None
        self.end = None


def plain_search(matches, words, candidate_words):
    """The numbers of the matches taken, word by word, with the certain ones on every path."""
    uses = [0] * words, [0] * candidate_words
    for start, length, there, there_length, _ in matches:
        for word in range(start, start + length):
            uses[0][word] += 1
        for word in range(there, there + there_length):
            uses[1][word] += 1
    certain = {}
    for number, (start, length, there, there_length, _) in enumerate(matches):
        if {*uses[0][start : start + length], *uses[1][there : there + there_length]} == {1}:
            certain[start] = number
    paths = [Path([True] * words, [True] * candidate_words)]
    for word in range(words):
        paths = sorted(paths, key=Path.rank)[: beam.BEAM]
        after = []
        for path in paths:
            if word < path.place:
                after.append(path)
            elif word in certain:
                path.take(certain[word], matches[certain[word]])
                after.append(path)
            else:
                for number, match in enumerate(matches):
                    if match[0] == word and path.is_free(*match[:4]):
                        other = copy.deepcopy(path)
                        other.take(number, match)
                        after.append(other)
                        path.distance += abs(match[0] - match[2])
                path.close_chunk()
                path.place = word + 1
                after.append(path)
        paths = after
    paths = sorted(paths, key=Path.rank)[: beam.BEAM]
    for path in paths:
        path.close_chunk()
    best = min(paths, key=Path.rank)
    return sorted(best.taken), best.chunks


def batched_search(problems):
    rows = [(pair, *match) for pair, (matches, _, _) in enumerate(problems) for match in matches]
    matches = Matches(*np.array(rows, np.int64).reshape(-1, 6).T)
    lengths = [np.array(column, np.int64) for column in list(zip(*problems, strict=True))[1:]]
    taken = alignment.certain_matches(matches, *lengths)
    steps, left = alignment.prepare(matches, taken, *lengths)
    taken[np.flatnonzero(~taken)[beam.search(steps, left)]] = True
    chunks = scoring._chunks(matches.take(np.flatnonzero(taken)), len(problems))
    chosen = [np.flatnonzero(taken[matches.pair == pair]).tolist() for pair in range(len(problems))]
    return list(zip(chosen, chunks.tolist(), strict=True))


@st.composite
def problem(draw, most_words=9, most_matches=16):
    """Any matches between captions of a few words, in any order at each word."""
    words, candidate_words = draw(st.integers(0, most_words)), draw(st.integers(0, most_words))
    if not words or not candidate_words:
        return [], words, candidate_words
    matches = []
    for _ in range(draw(st.integers(0, most_matches))):
        start = draw(st.integers(0, words - 1))
        there = draw(st.integers(0, candidate_words - 1))
        module = draw(st.integers(0, 3))
        longest = 3 if module == 3 else 1
        length = draw(st.integers(1, min(longest, words - start)))
        there_length = draw(st.integers(1, min(longest, candidate_words - there)))
        matches.append((start, length, there, there_length, module))
    return sorted(matches, key=lambda match: match[0]), words, candidate_words


def repeated_words(words, candidate_words):
    """The exact matches of two captions of few different words: far more paths than the beam."""
    matches = [
        (here, 1, there, 1, EXACT)
        for here, word in enumerate(words)
        for there, other in enumerate(candidate_words)
        if word == other
    ]
    return matches, len(words), len(candidate_words)


@settings(deadline=None, max_examples=150)
@given(st.lists(problem(), min_size=1, max_size=6))
@example([([], 0, 0)])
@example([([(0, 2, 1, 1, 3), (1, 1, 0, 1, 0), (1, 2, 1, 2, 3)], 3, 3), ([], 2, 0)])
def test_the_same_matches_are_taken(problems):
    assert batched_search(problems) == [plain_search(*one) for one in problems]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.builds(
            repeated_words,
            st.text("abc", min_size=5, max_size=11),
            st.text("abc", min_size=5, max_size=11),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_what_the_beam_loses_is_lost_alike(problems):
    assert batched_search(problems) == [plain_search(*one) for one in problems]


def test_more_words_than_a_path_remembers_in_one_number():
    chance = np.random.default_rng(3)
    problems = [
        repeated_words(chance.choice([*"abcdefgh"], 75), chance.choice([*"abcdefgh"], 150)),
        repeated_words("ab", "ba"),
    ]
    assert len(alignment.prepare(*_parts(problems))[1].takes) == 3
    assert batched_search(problems) == [plain_search(*one) for one in problems]


def _parts(problems):
    rows = [(pair, *match) for pair, (matches, _, _) in enumerate(problems) for match in matches]
    matches = Matches(*np.array(rows, np.int64).T)
    lengths = [np.array(column, np.int64) for column in list(zip(*problems, strict=True))[1:]]
    return matches, alignment.certain_matches(matches, *lengths), *lengths


@pytest.mark.parametrize("scale", [1, 1 << 40])
def test_the_order_of_paths_does_not_depend_on_how_it_is_sorted(scale):
    # With huge distances the fields of a key no longer fit into one integer.
    chance = np.random.default_rng(0)
    pair, gain, chunks, distance, _, _, _ = chance.integers(0, 4, (7, 600))
    paths = beam.Paths(np.sort(pair), gain, chunks, distance * scale, gain, gain, gain, ())
    expected = []
    for number in range(4):
        rows = np.flatnonzero(paths.pair == number)
        rows = sorted(rows, key=lambda row: (-gain[row], chunks[row], distance[row]))
        expected += rows[: beam.BEAM]
    assert beam._best(paths, 4).tolist() == expected


def test_the_wider_path_wins_over_fewer_chunks():
    # Two exact words in two chunks beat a paraphrase of two words by one, in one chunk.
    matches = [(0, 1, 3, 1, EXACT), (0, 2, 0, 1, 3), (1, 1, 0, 1, EXACT)]
    assert batched_search([(matches, 2, 4)]) == [([0, 2], 2)]
