"""A source without some of its records: duplicates, leaks of a test set, what a filter refused.

    config.data.train = {
        "name": "capjax.data.without",
        "data": {"name": "capjax.data.manifest", "path": ...},
        "records": "duplicates.jsonl",
    }

A line of the file names one record: {"key": "b.jpg", "index": 7, ...}; other fields may say why.
With `index`, its place in `data`, nothing needs to be searched, and a list that was made for
another order of the data is refused: some records it names are looked at when the source opens, and
none that it names is ever handed out. Without `index` the keys of all records are read once.
The remaining records keep their order; 8 bytes each are kept.

Raises `UserError` for a list that is missing, damaged or made for other data, for one that leaves
out everything, and for a mixture: wrap its sources.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from capjax.config import instantiate
from capjax.data.chosen import Chosen
from capjax.errors import UserError

_LOOKED_AT = 16  # named records that are compared with the data on opening


class Without(Chosen):
    """The records of an open source but those named: `rows` are dicts with `key`, maybe `index`."""

    def __init__(self, source: Any, rows: Sequence[Mapping[str, Any]], named_by: str = "the list"):
        super().__init__(source, "without")
        self._named_by = named_by
        self._keys = {row["key"] for row in rows}
        out = np.zeros(len(source), bool)
        out[self._places(rows)] = True
        self._kept = np.flatnonzero(~out)
        if len(source) and not len(self._kept):
            raise UserError(f"{named_by} leaves out all {len(source):,} records: none is left")

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._checked(super().__getitem__(index))

    def _encoded(self, index: int) -> dict[str, Any]:
        return self._checked(super()._encoded(index))

    def _places(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """The index of every record to leave out."""
        with_index = [row for row in rows if "index" in row]
        places = [row["index"] for row in with_index]
        for row in with_index:
            if not 0 <= row["index"] < len(self.source):
                raise self._other(f"names record {row['index']} of {len(self.source):,}")
        step = max(1, len(with_index) // _LOOKED_AT)
        for row in with_index[::step]:
            key = _key(self.source, row["index"])
            if key != row["key"]:
                raise self._other(f"has {row['key']!r} where the data have {key!r}")
        wanted = {row["key"] for row in rows if "index" not in row}
        if wanted:
            bar = tqdm(range(len(self.source)), desc="keys", delay=3, disable=None)
            places += [i for i in bar if _key(self.source, i) in wanted]
        return places

    def _checked(self, record: dict[str, Any]) -> dict[str, Any]:
        if record["key"] in self._keys:
            raise self._other(f"leaves out {record['key']!r}, which has another place now")
        return record

    def _other(self, reason: str) -> UserError:
        return UserError(f"{self._named_by} was made for other data: it {reason}; make it again")


class Source(Without):
    """The records of `data`, a source section, but those that the JSONL file `records` names."""

    def __init__(self, data: Mapping[str, Any], records: str | os.PathLike):
        source = instantiate(data, "Source", where="the data of without")
        super().__init__(source, read_rows(records), os.fspath(records))


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """[{"key": str, "index": int or absent}] of a JSONL file, without its other fields."""
    rows = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.append(_row(line, f"{os.fspath(path)}:{number}"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"cannot read {os.fspath(path)!r}: {reason}") from None
    return rows


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error})") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("key"), str):
        raise UserError(f"{where} names no record: it needs a field 'key'")
    row = {"key": fields["key"]}
    if "index" in fields:
        if type(fields["index"]) is not int:
            raise UserError(f"{where}: the index {fields['index']!r} is not a whole number")
        row["index"] = fields["index"]
    return row


def _key(source: Any, index: int) -> str:
    """The record's key, without decoding its picture where the source can."""
    read = source.encoded if hasattr(source, "encoded") else source.__getitem__
    return read(index)["key"]
