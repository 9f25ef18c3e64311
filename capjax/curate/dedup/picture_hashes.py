"""The perceptual hashes of all pictures of a source, kept in a file while they are computed.

Decoding is the slow part (some milliseconds a picture), so the hashes go to a JSONL file as they
come, one line a record in the order of the source:

    {"index": 0, "key": "dog.jpg", "phash": "d1c4f0e39a3c6ba1", "dhash": "e6c8d0b2a4964b2d"}
    {"index": 1, "key": "cut.jpg", "bad": "cannot be decoded: image file is truncated"}

A run that is stopped goes on behind the last whole line. The file is also what a test set leaves
behind for those who check their training data against it.

N: records of a source. n: those whose picture can be used.
Raises `UserError` for a file that belongs to another source, and where more records are bad than
`skips` allows.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from capjax.curate.dedup.picture_hash import KINDS, to_hex
from capjax.data.skips import SkipBudget
from capjax.errors import BadRecord, UserError

_AT_A_TIME = 256  # records handed to the threads, and lines written, at a time


@dataclasses.dataclass(frozen=True)
class PictureHashes:
    """The hashes of the n usable records, in order."""

    index: np.ndarray  # int64 [n], the record's place in the source
    keys: list[str]
    hashes: dict[str, np.ndarray]  # uint64 [n] of each kind


def hash_pictures(
    source: Any,
    path: str | os.PathLike | None = None,
    skips: SkipBudget | None = None,
    num_threads: int = 4,
) -> PictureHashes:
    """Every kind of hash of every picture of the source.

    path: the file to go on with and to fill; without one nothing is kept. A bad record raises
    `BadRecord`, or is left out and counted if `skips` is given.
    """
    known = _read(Path(path), source) if path is not None else []
    bar = tqdm(
        total=len(source),
        initial=len(known),
        desc="hashing",
        unit=" pictures",
        delay=3,
        disable=None,
    )
    rows = []
    with _appended(path) as file, bar:
        for row in _chain(known, source, num_threads, file, bar):
            if "bad" not in row:
                rows.append(row)
            elif skips is None:
                raise BadRecord(row["key"], row["bad"])
            else:
                skips.skip(row["key"], row["bad"])
    return _hashes(rows)


def read_hashes(path: str | os.PathLike) -> PictureHashes:
    """What `hash_pictures` wrote to a file, without its source."""
    return _hashes([row for row in _lines(Path(path))[0] if "bad" not in row])


def _hashes(rows: list[dict[str, Any]]) -> PictureHashes:
    return PictureHashes(
        np.array([row["index"] for row in rows], np.int64),
        [row["key"] for row in rows],
        {kind: np.array([int(row[kind], 16) for row in rows], np.uint64) for kind in KINDS},
    )


def _chain(rows, source, num_threads, file, bar) -> Iterator[dict[str, Any]]:
    """The rows that are known, then the others, written as they come."""

    def row(index: int) -> dict[str, Any]:
        try:
            record = source[index]
        except BadRecord as error:
            return {"index": index, "key": error.key, "bad": error.reason}
        hashes = {kind: to_hex(hashed(record["image"])) for kind, hashed in KINDS.items()}
        return {"index": index, "key": record["key"], **hashes}

    for known in rows:  # a picture that was bad may have been repaired since
        yield row(known["index"]) if "bad" in known else known
    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(len(rows), len(source), _AT_A_TIME):
            new = list(pool.map(row, range(start, min(start + _AT_A_TIME, len(source)))))
            if file is not None:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in new)
                file.flush()
            bar.update(len(new))
            yield from new


def _appended(path: str | os.PathLike | None) -> AbstractContextManager[IO[str] | None]:
    if path is None:
        return nullcontext()
    try:
        return open(path, "a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {os.fspath(path)!r}: {error.strerror}") from error


def _read(path: Path, source: Any) -> list[dict[str, Any]]:
    """The rows of a file to go on with; what follows the last whole line is cut off."""
    if not path.exists():
        return []
    rows, whole = _lines(path)
    other = f"{path} holds the hashes of another source: give another file"
    if len(rows) > len(source) or any(row["index"] != i for i, row in enumerate(rows)):
        raise UserError(other)
    good = [row for row in rows if "bad" not in row]
    for row in good[:1] + good[-1:]:  # each costs a picture
        if source[row["index"]]["key"] != row["key"]:
            raise UserError(other)
    os.truncate(path, whole)
    return rows


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """(the rows of the whole lines, how many bytes they take)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the hashes {str(path)!r}: {error.strerror}") from error
    whole = data.rfind(b"\n") + 1
    try:
        rows = [json.loads(line) for line in data[:whole].splitlines()]
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict) or not row.keys() >= {"index", "key"}:
                raise ValueError(f"line {number} names no record")
            if "bad" not in row and not row.keys() >= KINDS.keys():
                raise ValueError(f"line {number} lacks {' or '.join(KINDS)}")
    except ValueError as error:
        raise UserError(f"{path} holds no hashes of pictures ({error}): delete it") from None
    return rows, whole
