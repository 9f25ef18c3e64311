"""Two outputs side by side: what was made otherwise, and what came out otherwise.

Records are told apart by their key; of records that share one (a stage that makes several), by
their order. Memory: a hash a record.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from capjax.curate.finished import Finished
from capjax.curate.parts import differences
from capjax.errors import UserError

Name = tuple[str, int]


def compare(a: str | os.PathLike, b: str | os.PathLike, samples: int = 10) -> str:
    """In words, with up to `samples` records that differ. UserError for outputs without keys."""
    first, second = Finished(a), Finished(b)
    for output in (first, second):
        if "key" not in output.columns:
            raise UserError(f"{str(output.directory)!r} has no column 'key' to compare records by")
    shared = [name for name in first.columns if name in second.columns]
    sums = {name: _sum(row, shared) for name, row in _named(first)}
    changed: dict[Name, dict[str, Any]] = {}
    alike = count = only_second = 0
    for name, row in _named(second):
        before = sums.pop(name, None)
        if before is None:
            only_second += 1
        elif before == _sum(row, shared):
            alike += 1
        else:
            count += 1
            if len(changed) < samples:
                changed[name] = row
    lines = ["settings:"]
    lines += [f"  {one}" for one in differences(first.settings, second.settings)] or ["  the same"]
    lines += [
        "records:",
        f"  {alike:,} alike, {count:,} changed, {len(sums):,} only in {a}, {only_second:,} only "
        f"in {b}",
    ]
    for name, row in _named(first):
        if name in changed:
            other = changed[name]
            wrong = [column for column in shared if row[column] != other[column]]
            lines.append(f"  {name[0]}")
            for column in wrong:
                lines.append(f"    {column}: {row[column]!r}")
                lines.append(f"    {' ' * len(column)}  {other[column]!r}")
    return "\n".join(lines)


def _named(output: Finished) -> Iterator[tuple[Name, dict[str, Any]]]:
    seen: Counter[str] = Counter()
    for row in output.rows():
        yield (row["key"], seen[row["key"]]), row
        seen[row["key"]] += 1


def _sum(row: dict[str, Any], columns: list[str]) -> bytes:
    text = json.dumps([row[name] for name in columns], sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
