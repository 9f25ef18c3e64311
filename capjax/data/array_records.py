"""Records in ArrayRecord files, which read any record by its number.

A record of the file is: the length of its head (4 bytes, little-endian), the head, a JSON object
{key, captions, ...}, and the picture's bytes. `python -m capjax.data prepare` writes such files.
Sets that TFDS prepared are ArrayRecord files of another content: see `capjax.data.tfds_source`.

Raises `UserError` for files that are none, and `BadRecord` for a record that is damaged.
"""

from __future__ import annotations

import bisect
import glob
import json
import os
import threading
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from capjax.data import images
from capjax.data.encoded import OWN_FIELDS, fields_of
from capjax.errors import BadRecord, UserError

_LENGTH_BYTES = 4


class Source:
    """The records {key, image uint8 [H,W,3], captions, ...} of the files, in the order of names.

    files: a pattern (data/train-*.array_record) or a list of files.
    """

    def __init__(self, files: str | Sequence[str]):
        self.files = sorted(glob.glob(files)) if isinstance(files, str) else list(files)
        if not self.files:
            raise UserError(f"there is no file {files!r}: give the pattern of ArrayRecord files")
        self._open()

    def _open(self) -> None:
        self._readers = [_reader(path) for path in self.files]
        self._ends = list(accumulate(reader.num_records() for reader in self._readers))
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.encoded(index)
        try:
            return {**record, "image": images.decode(record["image"])}
        except ValueError as error:
            raise BadRecord(record["key"], str(error)) from None

    def encoded(self, index: int) -> dict[str, Any]:
        """The record with its picture as it is stored."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._ends, index)
        own = index - (self._ends[number - 1] if number else 0)
        place = f"{os.path.basename(self.files[number])}:{own}"
        try:
            with self._lock:  # a reader has one position
                (data,) = self._readers[number].read([own])
            return unpack(data)
        except (ValueError, RuntimeError, KeyError) as error:
            raise BadRecord(place, f"the record is damaged ({error})") from None

    def captions(self, index: int) -> list[str]:
        """The record's captions; its picture is not decoded."""
        return self.encoded(index)["captions"]

    # Readers live in C++: worker processes open the files again.
    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.files = state["files"]
        self._open()


def pack(record: dict[str, Any]) -> bytes:
    """A record with its picture's bytes (`capjax.data.encoded`) as one of the file."""
    head = {"key": record["key"], "captions": record["captions"], **fields_of(record)}
    text = json.dumps(head, ensure_ascii=False).encode()
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + record["image"]


def unpack(data: bytes) -> dict[str, Any]:
    """The reverse; ValueError or KeyError for what is no such record."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    if end > len(data):
        raise ValueError("its head is longer than itself")
    head = json.loads(data[_LENGTH_BYTES:end].decode())
    fields = {name: value for name, value in head.items() if name not in OWN_FIELDS}
    return {**fields, "key": head["key"], "image": data[end:], "captions": list(head["captions"])}


def write(path: str | os.PathLike, records: Iterable[dict[str, Any]]) -> None:
    """Writes records with their pictures' bytes; each is a group, so that reading one is cheap."""
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
    try:
        for record in records:
            writer.write(pack(record))
    finally:
        writer.close()


def _reader(path: str) -> Any:
    from array_record.python import array_record_module

    if not os.path.isfile(path):
        raise UserError(f"there is no file {path!r}: give the pattern of ArrayRecord files")
    reader = array_record_module.ArrayRecordReader(path)
    # The library says nothing of a file without its footer: it has no records, then.
    if not reader.num_records():
        raise UserError(f"{path!r} is no ArrayRecord file, or is cut short: write it again")
    return reader
