"""All pairs of 64-bit hashes that differ in at most d bits: exact, and not quadratic.

Multi-index hashing (Norouzi, Punjani & Fleet 2012, "Fast Search in Hamming Space with Multi-Index
Hashing", section 3): the 64 bits are cut into m bands. With d = m r + a, 0 <= a < m, two hashes
within d differ in at most r bits in one of the first a + 1 bands, or in at most r - 1 bits in one
of the others: else they would differ in more than d. So for each band the hashes are sorted by
their bits there, each query looks up the values within the band's radius, and every hash that is
found so is compared in full. m is chosen by N and d, so that the least is looked up and compared.

Time and memory are for hashes that spread evenly: of a million, all pairs within 4, 6 and 8 bits
took 3, 18 and 52 seconds on one core, and within 10 bits some four minutes; of four million within
4 bits 21 seconds. Memory: the result (17 bytes a pair, twice while it is sorted), 30 bytes a hash,
and 100 MiB for the offsets of a band and the candidates that are compared at a time. n equal hashes
have n (n - 1) / 2 pairs: `capjax.curate.dedup.groups` does not list those.

Q: queries. N: hashes searched. P: pairs found. Raises `UserError` for d outside [0, 63].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from capjax.errors import UserError

BITS = 64
_MOST_BAND_BITS = 22  # the offsets of a band are 2**22 numbers of 8 bytes
_CANDIDATES = 1 << 20  # compared at a time
_QUERIES = 1 << 16  # looked up at a time
# Relative costs of looking a value up and of comparing a candidate (80 and 20 ns when measured);
# they only choose m, the answer is the same for every m.
_LOOK_UP, _COMPARE = 4.0, 1.0

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def pairs_within(hashes: np.ndarray, distance: int) -> Pairs:
    """uint64 [N] -> (first int64 [P], second int64 [P], distance uint8 [P]), first < second.

    Every pair once, sorted by (first, second).
    """
    found = [
        (first[keep], second[keep], apart[keep])
        for first, second, apart in _search(hashes, hashes, distance)
        if (keep := first < second).any()
    ]
    return _sorted(found)


def matches_within(queries: np.ndarray, hashes: np.ndarray, distance: int) -> Pairs:
    """uint64 [Q], uint64 [N] -> (query int64 [P], hash int64 [P], distance uint8 [P]).

    Every pair of a query and a hash once, sorted by (query, hash).
    """
    return _sorted(list(_search(queries, hashes, distance)))


def bands(count: int, distance: int) -> list[tuple[int, int, int]]:
    """(shift, bits, radius) of each band that must be searched, for N = `count` and d."""
    if not 0 <= distance < BITS:
        raise UserError(f"a distance of {distance} bits between 64-bit hashes is not in [0, 63]")
    fewest = math.ceil(BITS / _MOST_BAND_BITS)
    options = (_cut(number, distance) for number in range(fewest, BITS + 1))
    return min(options, key=lambda cut: _cost(cut, count))


def _cut(number: int, distance: int) -> list[tuple[int, int, int]]:
    """The 64 bits in m = `number` bands; those whose radius would be negative are left out."""
    radius, rest = divmod(distance, number)
    ends = [BITS * i // number for i in range(number + 1)]
    cut = []
    for i, (low, high) in enumerate(itertools.pairwise(ends)):
        own = min(radius if i <= rest else radius - 1, high - low)
        if own >= 0:
            cut.append((low, high - low, own))
    return cut


def _cost(cut: list[tuple[int, int, int]], count: int) -> float:
    """Of one query, in units of a comparison."""
    return sum(
        sum(math.comb(bits, k) for k in range(radius + 1))
        * (_LOOK_UP + _COMPARE * count / 2.0**bits)
        for _, bits, radius in cut
    )


def _search(queries: np.ndarray, hashes: np.ndarray, distance: int) -> Iterator[Pairs]:
    """Pieces of the answer, each pair in one of them."""
    queries, hashes = _checked(queries), _checked(hashes)
    if not len(queries) or not len(hashes):
        return
    cut = bands(len(hashes), distance)
    bar = tqdm(total=len(cut) * len(queries), desc="comparing", delay=3, disable=None, unit=" hash")
    with bar:
        for number, (shift, bits, radius) in enumerate(cut):
            values = _band(hashes, shift, bits)
            order = np.argsort(values, kind="stable").astype(_index_type(len(hashes)))
            # The hashes with value v in this band are order[begins[v] : begins[v + 1]].
            begins = np.zeros((1 << bits) + 1, np.int64)
            np.cumsum(np.bincount(values, minlength=1 << bits), out=begins[1:])
            ordered = hashes[order]
            del values
            flips = _flips(bits, radius)
            for start in range(0, len(queries), _QUERIES):
                some = queries[start : start + _QUERIES]
                own = _band(some, shift, bits)
                for flip in flips:
                    probe = own ^ flip
                    low, high = begins[probe], begins[probe + 1]
                    for query, place in _expand(low, high - low):
                        differing = some[query] ^ ordered[place]
                        apart = np.bitwise_count(differing)
                        keep = np.flatnonzero(apart <= distance)
                        # Several bands find a pair: the first one that does reports it.
                        for s, b, r in cut[:number]:
                            seen = np.bitwise_count(_band(differing[keep], s, b)) <= r
                            keep = keep[~seen]
                        if len(keep):
                            yield query[keep] + start, order[place[keep]], apart[keep]
                bar.update(len(some))


def _expand(begins: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For ranges [begin, begin + count): (which range, place in it), some candidates at a time."""
    hit = np.flatnonzero(counts)
    ends = np.cumsum(counts[hit])
    start = 0
    while start < len(hit):
        done = ends[start - 1] if start else 0
        # At least one range, even where it alone is larger than a piece.
        stop = max(int(np.searchsorted(ends, done + _CANDIDATES, side="right")), start + 1)
        some, sizes = hit[start:stop], counts[hit[start:stop]]
        before = np.cumsum(sizes) - sizes
        place = np.arange(int(sizes.sum())) + np.repeat(begins[some] - before, sizes)
        yield np.repeat(some, sizes), place
        start = stop


def _flips(bits: int, radius: int) -> list[int]:
    """All numbers of `bits` bits with at most `radius` ones."""
    return [
        sum(1 << bit for bit in chosen)
        for ones in range(radius + 1)
        for chosen in itertools.combinations(range(bits), ones)
    ]


def _band(hashes: np.ndarray, shift: int, bits: int) -> np.ndarray:
    """int64 [N]: the `bits` bits above `shift`."""
    return ((hashes >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.int64)


def _sorted(found: list[Pairs]) -> Pairs:
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    first, second = (np.concatenate([p[i] for p in found]).astype(np.int64) for i in (0, 1))
    apart = np.concatenate([p[2] for p in found]).astype(np.uint8)
    order = np.lexsort((second, first))
    return first[order], second[order], apart[order]


def _checked(hashes: np.ndarray) -> np.ndarray:
    hashes = np.asarray(hashes)
    if hashes.dtype != np.uint64 or hashes.ndim != 1:
        raise UserError(f"hashes must be one row of uint64, not {hashes.dtype} {hashes.shape}")
    return hashes


def _index_type(count: int) -> type:
    return np.int32 if count < 2**31 else np.int64
