"""MinHash: which of many texts are nearly the same, without comparing each with each.

A text is the set of its shingles: runs of words, or of characters. How alike two texts are is the
Jaccard index of their sets, J = |A and B| / |A or B|. A signature holds K numbers, the least hash
of the set under each of K hash functions; two signatures agree at a place with probability J
(Broder 1997, "On the resemblance and containment of documents"), so their share of equal places
estimates J with a standard error of sqrt(J (1 - J) / K). For the search, the K places are cut into
bands of r; a pair that agrees in a whole band is a candidate, which a pair with index J is with
probability 1 - (1 - J^r)^(K // r) (Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets",
section 3.4). Candidates are then compared exactly, so that what is reported is never wrong, and
what is missed has a probability that can be chosen.

The hash functions are (a x + b) mod 2^64 >> 32 of 32-bit shingle hashes, with random a and b
(multiply-add-shift, strongly universal: Dietzfelbinger 1996).

N: texts. T: shingles of all. K: numbers of a signature. r: places of a band. P: pairs.
Time and memory, with K = 128 and pairs of words: 165,000 captions of COCO and Flickr30k took 12
seconds and 100 MiB + 1.6 KB a caption (`stages.duplicate_captions`, threshold 0.8); 8 bytes a
candidate come on top, which are many where texts are short and the threshold is low.
Raises `UserError` for an unknown unit and for a threshold outside (0, 1].
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from array import array
from collections.abc import Iterable

import numpy as np

from capjax.errors import UserError

UNITS = ("word", "character")
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_AT_A_TIME = 1 << 22  # numbers computed at a time
_EMPTY = np.uint32(2**32 - 1)


@dataclasses.dataclass(frozen=True)
class ShingleSets:
    """N sets: the i-th is values[begins[i] : begins[i + 1]], sorted, without repeats."""

    values: np.ndarray  # uint32 [T]
    begins: np.ndarray  # int64 [N + 1]

    def __len__(self) -> int:
        return len(self.begins) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.begins[i] : self.begins[i + 1]]


def normalised(text: str, unit: str = "word") -> str:
    """What counts of a text: lower-cased words, or characters with single spaces."""
    text = text.casefold()
    return " ".join(_WORD.findall(text) if unit == "word" else text.split())


def shingles(text: str, size: int = 2, unit: str = "word") -> list[str]:
    """The runs of `size` words or characters of the text, each once, sorted.

    A text that is shorter than a run is one shingle; one without a word has none. With "word", a
    clause in a script without spaces is one word: use "character" there.
    """
    if unit not in UNITS:
        raise UserError(f"unknown unit of shingles {unit!r}; choose one of {', '.join(UNITS)}")
    if size < 1:
        raise UserError(f"shingles of {size} {unit}s hold nothing: use 1 or more")
    text = normalised(text, unit)
    items = text.split() if unit == "word" else text
    joint = " " if unit == "word" else ""
    if not items:
        return []
    last = max(len(items) - size, 0)
    return sorted({joint.join(items[i : i + size]) for i in range(last + 1)})


def shingle_sets(texts: Iterable[str], size: int = 2, unit: str = "word") -> ShingleSets:
    """The hashed shingles of N texts."""
    values, begins = array("I"), array("q", [0])
    for text in texts:
        values.extend(sorted({_hash(shingle) for shingle in shingles(text, size, unit)}))
        begins.append(len(values))
    return ShingleSets(np.array(values, np.uint32), np.array(begins, np.int64))


def signatures(sets: ShingleSets, permutations: int = 128, seed: int = 0) -> np.ndarray:
    """uint32 [N,K] with K = `permutations`; an empty set has the largest number everywhere."""
    rng = np.random.default_rng((seed, permutations))
    factor, shift = rng.integers(0, 2**64, (2, permutations), dtype=np.uint64)
    factor |= np.uint64(1)
    result = np.full((len(sets), permutations), _EMPTY, np.uint32)
    sizes = np.diff(sets.begins)
    filled = np.flatnonzero(sizes)
    # Whole sets at a time, as many as fit.
    pieces = np.cumsum(sizes[filled]) * permutations // _AT_A_TIME
    for some in np.split(filled, np.flatnonzero(np.diff(pieces)) + 1):
        if not len(some):
            continue
        begin, end = sets.begins[some[0]], sets.begins[some[-1] + 1]
        hashed = (sets.values[begin:end, None] * factor + shift) >> np.uint64(32)  # [T,K]
        least = np.minimum.reduceat(hashed, sets.begins[some] - begin, axis=0)
        result[some] = least.astype(np.uint32)
    return result


def estimate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """uint32 [...,K] twice -> float64 [...], the estimated Jaccard index."""
    return np.mean(first == second, axis=-1)


def rows_for(threshold: float, permutations: int, recall: float = 0.95) -> int:
    """The longest band with which a pair of index `threshold` is found with probability `recall`.

    Pairs above the threshold are found more often. UserError where even a band of 1 is too long.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold={threshold} of a Jaccard index is not in (0, 1]")
    for rows in range(permutations, 0, -1):
        if found_with(threshold, permutations, rows) >= recall:
            return rows
    raise UserError(
        f"{permutations} permutations cannot find pairs of index {threshold} with probability "
        f"{recall}: use more, or a higher threshold"
    )


def found_with(index: float, permutations: int, rows: int) -> float:
    """The probability that a pair with that Jaccard index becomes a candidate."""
    return 1 - (1 - index**rows) ** (permutations // rows)


def candidates(signature: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """uint32 [N,K] -> (first int64 [P], second int64 [P]), first < second, each pair once, sorted.

    Texts that share a band are all paired: collapse equal texts before (`near_pairs` does).
    """
    count, permutations = signature.shape
    rng = np.random.default_rng(0)
    found = np.zeros(0, np.uint64)  # first * N + second
    for start in range(0, permutations - rows + 1, rows):
        # One number a band: of unequal bands two in 2^64 agree, and candidates are compared anyway.
        factor = rng.integers(0, 2**64, rows, dtype=np.uint64) | np.uint64(1)
        band = (signature[:, start : start + rows] * factor).sum(axis=1, dtype=np.uint64)
        order = np.argsort(band, kind="stable")
        ends = np.flatnonzero(np.diff(band[order])) + 1
        here = [found]
        for begin, end in itertools.pairwise([0, *ends.tolist(), count]):
            if end - begin > 1:
                same = order[begin:end]  # rising: the sort is stable
                a, b = np.triu_indices(end - begin, 1)
                here.append((same[a] * count + same[b]).astype(np.uint64))
        found = np.unique(np.concatenate(here)) if len(here) > 1 else found
    return (found // np.uint64(count or 1)).astype(np.int64), (
        found % np.uint64(count or 1)
    ).astype(np.int64)


def jaccard(sets: ShingleSets, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int64 [P] twice -> float64 [P], exactly; 0 where both sets are empty."""
    sizes = np.diff(sets.begins)
    result = np.zeros(len(first))
    work = np.cumsum(sizes[first] + sizes[second]) // _AT_A_TIME
    for some in np.split(np.arange(len(first)), np.flatnonzero(np.diff(work)) + 1):
        items = [_members(sets, side[some]) for side in (first, second)]
        # (pair, shingle) as one number: what stands twice is in both sets.
        joined = np.sort(np.concatenate(items))
        twice = joined[1:][joined[1:] == joined[:-1]] >> np.uint64(32)
        shared = np.bincount(twice.astype(np.int64), minlength=len(some))
        union = sizes[first[some]] + sizes[second[some]] - shared
        result[some] = shared / np.maximum(union, 1)
    return result


def near_pairs(
    sets: ShingleSets, threshold: float, permutations: int = 128, recall: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first int64 [P], second int64 [P], Jaccard float64 [P]) of pairs at or above the threshold.

    The sets should differ from each other: n equal ones have n (n - 1) / 2 pairs.
    """
    rows = rows_for(threshold, permutations, recall)
    first, second = candidates(signatures(sets, permutations), rows)
    index = jaccard(sets, first, second)
    keep = index >= threshold
    return first[keep], second[keep], index[keep]


def _members(sets: ShingleSets, chosen: np.ndarray) -> np.ndarray:
    """uint64: place in `chosen` * 2^32 + shingle, for every shingle of the chosen sets."""
    sizes = np.diff(sets.begins)[chosen]
    before = np.cumsum(sizes) - sizes
    place = np.arange(int(sizes.sum())) + np.repeat(sets.begins[chosen] - before, sizes)
    number = np.repeat(np.arange(len(chosen), dtype=np.uint64), sizes)
    return (number << np.uint64(32)) | sets.values[place].astype(np.uint64)


def _hash(shingle: str) -> int:
    """32 bits, the same on every machine and in every run."""
    data = shingle.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "big")
