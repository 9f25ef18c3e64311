"""From pairs of near duplicates to groups: which records stay, and of which one each other repeats.

Records are taken in order; one that is near a record that stays is left out, and one that is near
none stays. So each record that is left out has one that stays within the limit: the nearest one,
of equally near ones the first. Connected components, the other usual choice, would chain: a is
near b, b near c, and c goes although nothing like it stays.

N: records. P: pairs. C: hashes of a record. Q: records compared with the N.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from capjax.curate.dedup.hamming import Pairs, matches_within, pairs_within


@dataclasses.dataclass(frozen=True)
class Groups:
    """leader int64 [N]: the record that stays for each; distance float32 [N]: how far from it."""

    leader: np.ndarray
    distance: np.ndarray

    @property
    def left_out(self) -> np.ndarray:
        """int64: the records that repeat another one, in order."""
        return np.flatnonzero(self.leader != np.arange(len(self.leader)))

    def lists(self) -> list[list[int]]:
        """The groups of two or more records, each with the one that stays first."""
        members: dict[int, list[int]] = {}
        for record in self.left_out:
            leader = int(self.leader[record])
            members.setdefault(leader, [leader]).append(int(record))
        return [members[leader] for leader in sorted(members)]


def group(count: int, first: np.ndarray, second: np.ndarray, distance: np.ndarray) -> Groups:
    """The groups of N = `count` records, given all near pairs, first < second: [P] each."""
    leader = list(range(count))
    apart = np.zeros(count, np.float32)
    order = np.lexsort((first, distance, second))  # by second; of each, the nearest first
    pairs = (column[order].tolist() for column in (first, second, distance))
    for near, record, far in zip(*pairs, strict=True):
        # All before `record` are decided: whether `near` stays is known.
        if leader[record] == record and leader[near] == near:
            leader[record], apart[record] = near, far
    return Groups(np.array(leader, np.int64), apart)


def group_hashes(hashes: np.ndarray, distance: int) -> Groups:
    """uint64 [N,C] -> the groups of records all of whose C hashes are within `distance` bits.

    The distance of two records is that of the hash that differs most. Equal hashes are taken
    together first, so that a thousand copies cost no million pairs.
    """
    values, first_place, value_of = np.unique(
        hashes, axis=0, return_index=True, return_inverse=True
    )
    # Numbered by where they first occur, since the order of records decides what stays.
    by_place = np.argsort(first_place)
    number = np.empty(len(values), np.int64)
    number[by_place] = np.arange(len(values))
    values, first_place = values[by_place], first_place[by_place]
    pairs = pairs_within(values[:, 0], distance)
    own = group(len(values), *all_near(values, values, distance, *pairs))
    of = number[value_of.reshape(-1)]
    return Groups(first_place[own.leader[of]], own.distance[of])


def match_hashes(queries: np.ndarray, hashes: np.ndarray, distance: int) -> Pairs:
    """uint64 [Q,C], uint64 [N,C] -> (query [P], record [P], distance [P]), all C hashes near."""
    pairs = matches_within(queries[:, 0], hashes[:, 0], distance)
    return all_near(queries, hashes, distance, *pairs)


def all_near(
    queries: np.ndarray,
    hashes: np.ndarray,
    distance: int,
    first: np.ndarray,
    second: np.ndarray,
    apart: np.ndarray,
) -> Pairs:
    """Of pairs whose first hash is near, those whose others are, too; the largest distance."""
    for column in range(1, queries.shape[1]):
        own = np.bitwise_count(queries[first, column] ^ hashes[second, column])
        keep = own <= distance
        first, second, apart = first[keep], second[keep], np.maximum(apart, own)[keep]
    return first, second, apart
