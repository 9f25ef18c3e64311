"""Batches of one size from any source: pictures decoded and resized in threads, ahead of use.

A part is a range of the source's records, and no batch crosses from one part into the next: which
pictures are in a batch depends on the part alone, so that a part that is made again, or on another
host, is made of the same batches. Reading ahead does not stop at the end of a part.

Letters: B rows of a batch, S side in pixels.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from capjax.data.loader import to_size
from capjax.errors import BadRecord


class Size(NamedTuple):
    """How a model takes a picture."""

    side: int
    resize: str  # a rule of `capjax.data.resize`


@dataclasses.dataclass
class Batch:
    """Up to B pictures of one part."""

    part: int
    keys: list[str] = dataclasses.field(default_factory=list)  # of the first rows
    images: list[np.ndarray] = dataclasses.field(default_factory=list)  # uint8 [B,S,S,3] a size
    bad: dict[str, str] = dataclasses.field(default_factory=dict)  # key -> why it has no row
    ends_part: bool = False


class _Picture(NamedTuple):
    key: str
    images: list[np.ndarray]  # uint8 [S,S,3] a size


def batches(
    source: Any,
    parts: Mapping[int, range],
    sizes: Sequence[Size],
    batch_size: int,
    threads: int,
) -> Iterator[Batch]:
    """The batches of all parts in order; a part whose records are all bad has one without rows.

    The last rows of a batch that is not full repeat its first picture: nothing is compiled for
    another size, and no row takes longer to caption than those that count.
    """
    filling: Batch | None = None
    rows: list[_Picture] = []
    for part, is_last, found in _read(source, parts, sizes, 2 * batch_size + threads, threads):
        filling = filling or Batch(part)
        if isinstance(found, BadRecord):
            filling.bad[found.key] = found.reason
        else:
            rows.append(found)
        if len(rows) == batch_size or is_last:
            filling.keys = [row.key for row in rows]
            if rows:
                rows += rows[:1] * (batch_size - len(rows))
                filling.images = [
                    np.stack([row.images[i] for row in rows]) for i in range(len(sizes))
                ]
            filling.ends_part = is_last
            yield filling
            filling, rows = None, []


def _read(source: Any, parts: Mapping[int, range], sizes, ahead: int, threads: int):
    """(part, is it the part's last, picture or BadRecord) of each record in order."""
    places = ((part, i, i == indices[-1]) for part, indices in parts.items() for i in indices)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
    waiting: collections.deque = collections.deque()
    try:
        for part, index, is_last in places:
            waiting.append((part, is_last, pool.submit(_prepared, source, index, sizes)))
            if len(waiting) > ahead:
                part, is_last, future = waiting.popleft()
                yield part, is_last, future.result()
        while waiting:
            part, is_last, future = waiting.popleft()
            yield part, is_last, future.result()
    finally:
        # Whoever stops early must not wait for pictures that nobody wants.
        pool.shutdown(cancel_futures=True)


def _prepared(source: Any, index: int, sizes: Sequence[Size]) -> _Picture | BadRecord:
    try:
        record = source[index]
    except BadRecord as error:
        return error
    return _Picture(record["key"], [to_size(record["image"], *size) for size in sizes])
