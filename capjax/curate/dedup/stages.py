"""Near duplicates within a source, and of a test set in training data: three stages and their file.

    duplicate_pictures(source, distance)     pictures whose perceptual hashes are near
    duplicate_captions(source, threshold)    texts whose shingles largely agree
    leaked(train, test, distance)            training pictures that are near a test picture

Each works on any source and gives indices; `write` makes them a JSONL file, one line for each
record that repeats another one,

    {"key": "b.jpg", "index": 7, "duplicate_of": "a.jpg", "distance": 2.0}

which `capjax.data.without` takes to leave these records out. The distance is in bits for pictures
and 1 - Jaccard for captions. Which of two duplicates stays: the earlier one (`groups`).

Source: comparing with the test set before training is CLIP's overlap analysis (arXiv 2103.00020,
section 5) and ALIGN's filter (arXiv 2102.05918, section 3), with other detectors.
Raises `UserError` as the parts do, and for records that do not have one caption each.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from capjax.curate.dedup import minhash
from capjax.curate.dedup.groups import Groups, group, group_hashes, match_hashes
from capjax.curate.dedup.picture_hash import KINDS
from capjax.curate.dedup.picture_hashes import PictureHashes, hash_pictures
from capjax.data.skips import SkipBudget
from capjax.errors import UserError
from capjax.whole_file import whole_file


@dataclasses.dataclass(frozen=True)
class Leaks:
    """Records of `train` that are near one of `test`, in order, each with the nearest one."""

    train: np.ndarray  # int64 [P], index
    test: np.ndarray  # int64 [P]
    distance: np.ndarray  # float32 [P]


def duplicate_pictures(
    source: Any,
    distance: int = 10,
    kind: str = "both",
    hashes: str | os.PathLike | None = None,
    skips: SkipBudget | None = None,
) -> Groups:
    """The groups of records whose pictures' hashes are within `distance` bits.

    kind: "phash", "dhash" or "both", each of which must be near (`picture_hash` measures them).
    hashes: the file that the hashes are kept in, see `picture_hashes`. Records whose picture cannot
    be used raise `BadRecord`, or with `skips` are counted and stay in the source.
    """
    kinds = _kinds(kind)
    hashed = hash_pictures(source, hashes, skips)
    index, found = hashed.index, group_hashes(_columns(hashed, kinds), distance)
    leader, apart = np.arange(len(source)), np.zeros(len(source), np.float32)
    leader[index], apart[index] = index[found.leader], found.distance
    return Groups(leader, apart)


def duplicate_captions(
    source: Any,
    threshold: float = 0.8,
    size: int = 2,
    unit: str = "word",
    permutations: int = 128,
    recall: float = 0.95,
) -> Groups:
    """The groups of records whose captions have a Jaccard index of `threshold` or more.

    Of runs of `size` words or characters (`minhash`). Captions of equal runs are always found, a
    pair at the threshold with probability `recall`, and pairs above it more often. A source with
    several captions a record is wrapped before, `each_caption.EachCaption(source)`.
    """
    bar = tqdm(range(len(source)), desc="shingles", unit=" captions", delay=3, disable=None)
    sets = minhash.shingle_sets((_one_caption(source, i) for i in bar), size, unit)
    # Equal sets are taken together: of a caption that occurs a thousand times, one is searched.
    first_with: dict[bytes, int] = {}
    equal = np.arange(len(sets))
    for i in range(len(sets)):
        if len(sets[i]):  # a caption without a word repeats nothing
            equal[i] = first_with.setdefault(sets[i].tobytes(), i)
    chosen = np.array(list(first_with.values()), np.int64)
    first, second, index = minhash.near_pairs(_of(sets, chosen), threshold, permutations, recall)
    found = group(len(chosen), first, second, 1 - index)
    leader, apart = np.arange(len(sets)), np.zeros(len(sets), np.float32)
    leader[chosen], apart[chosen] = chosen[found.leader], found.distance
    return Groups(leader[equal], apart[equal])


def leaked(
    train: Any,
    test: Any,
    distance: int = 10,
    kind: str = "both",
    train_hashes: str | os.PathLike | None = None,
    test_hashes: str | os.PathLike | None = None,
    skips: SkipBudget | None = None,
) -> Leaks:
    """The training records that show a test picture, or one within `distance` bits of it.

    Bad records of `train` are counted in `skips`; one of `test` raises `BadRecord`, since what it
    leaks could not be found.
    """
    kinds = _kinds(kind)
    tested = hash_pictures(test, test_hashes)
    trained = hash_pictures(train, train_hashes, skips)
    # The larger set is the one that is searched in: each band of it is sorted once.
    second, first, apart = match_hashes(_columns(tested, kinds), _columns(trained, kinds), distance)
    order = np.lexsort((second, apart, first))  # of each training record, the nearest one first
    nearest = order[np.diff(first[order], prepend=-1) != 0]
    return Leaks(
        trained.index[first[nearest]],
        tested.index[second[nearest]],
        apart[nearest].astype(np.float32),
    )


def duplicate_rows(source: Any, found: Groups) -> Iterator[dict[str, Any]]:
    """A line of the file for each record that is left out."""
    for i in found.left_out.tolist():
        yield _row(source, i, source, int(found.leader[i]), found.distance[i])


def leaked_rows(train: Any, test: Any, found: Leaks) -> Iterator[dict[str, Any]]:
    """A line of the file for each training record that leaks."""
    for i, j, apart in zip(found.train.tolist(), found.test.tolist(), found.distance, strict=True):
        yield _row(train, i, test, j, apart)


def write(path: str | os.PathLike, rows: Iterator[dict[str, Any]]) -> int:
    """Writes the rows as JSONL, whole or not at all; returns how many there are."""
    count = 0
    with whole_file(Path(path)) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _kinds(kind: str) -> tuple[str, ...]:
    if kind == "both":
        return tuple(KINDS)
    if kind not in KINDS:
        raise UserError(f"unknown picture hash {kind!r}; choose one of {', '.join(KINDS)}, both")
    return (kind,)


def _columns(hashed: PictureHashes, kinds: tuple[str, ...]) -> np.ndarray:
    """uint64 [n,C]"""
    return np.stack([hashed.hashes[kind] for kind in kinds], axis=1)


def _row(source: Any, index: int, other: Any, of: int, distance: float) -> dict[str, Any]:
    return {
        "key": _key(source, index),
        "index": index,
        "duplicate_of": _key(other, of),
        "distance": round(float(distance), 4),
    }


def _key(source: Any, index: int) -> str:
    """The record's key, without decoding its picture where the source can."""
    read = source.encoded if hasattr(source, "encoded") else source.__getitem__
    return read(index)["key"]


def _one_caption(source: Any, index: int) -> str:
    captions = source.captions(index)
    if len(captions) != 1:
        raise UserError(
            f"record {index} has {len(captions)} captions and duplicate_captions takes one: wrap "
            "the source in capjax.data.each_caption"
        )
    return captions[0]


def _of(sets: minhash.ShingleSets, chosen: np.ndarray) -> minhash.ShingleSets:
    """Some of the sets."""
    sizes = np.diff(sets.begins)[chosen]
    values = [sets[i] for i in chosen] or [sets.values[:0]]
    return minhash.ShingleSets(np.concatenate(values), np.concatenate([[0], np.cumsum(sizes)]))
