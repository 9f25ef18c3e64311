"""The lines of a JSONL manifest, checked on opening and read again when asked for.

What `manifest.Source` (pictures) and `media.Source` (videos and recordings) share: one JSON object
a line names a file below a folder, or a member of an uncompressed tar there, in a field of its kind
("image", "video", "audio"), and its captions. The manifest remains its own store: opened lines
hold where each line and each file begins, 36 bytes a record.

N: records. Offsets and sizes are bytes.
"""

from __future__ import annotations

import codecs
import json
import os
from array import array
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from capjax.data.skips import SkipBudget
from capjax.data.tars import IndexedFile, TarIndex, refuse_compressed
from capjax.errors import BadRecord, UserError

_IS_FILE = -1  # in place of a shard's number: what the line names is a file of its own


def check_folder(name: str, folder: str | os.PathLike | None) -> None:
    """Raises `UserError` where the argument `name` is given and names no folder."""
    if folder is not None and not os.path.isdir(folder):
        raise UserError(f"{name} {os.fspath(folder)!r} is not a folder")


class Lines:
    """The N usable lines of a manifest.

    Args:
      path: the manifest.
      field: the field that names a file, and `noun` what such a file is called in messages.
      root: the folder of files and shards, where that is not the manifest's.
      split: keep only the lines whose field `split` equals this.
      limit: keep the first `limit` good records and look no further.
      max_bad_fraction: the share of the lines that may be unusable. Each such line is logged with
        its number and left out (`bad`); beyond the share, opening fails.
      mark: what is added to a key that is the file's name, so that one file may serve several
        lines; it raises `ValueError` for fields that are wrong in a way only the kind knows.

    Raises `UserError` for a missing or empty manifest, for too many bad lines (naming the first),
    and where no record is left.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        field: str,
        noun: str,
        root: str | os.PathLike | None = None,
        split: str | None = None,
        limit: int | None = None,
        max_bad_fraction: float = 0.0,
        mark: Callable[[dict[str, Any]], str] | None = None,
    ):
        if limit is not None and limit < 1:
            raise UserError(f"limit={limit} keeps no record; use a positive number or leave it out")
        self._manifest = IndexedFile(path)
        self.path = self._manifest.path
        self._root = os.fspath(root or os.path.dirname(self.path))
        self._field, self._noun, self._mark = field, noun, mark
        self._own_fields = frozenset({field, "shard", "caption", "captions"})
        self._lines = _Slices()
        self._places = _Slices()
        self._shard = array("i")  # N numbers into _shards, or _IS_FILE
        self._shards: list[IndexedFile] = []
        self.bad = self._open(split, limit, max_bad_fraction)

    def __len__(self) -> int:
        return len(self._shard)

    def encoded(self, i: int) -> dict[str, Any]:
        """{key, the file's bytes under the name of its field, captions, every other field}."""
        fields = self._fields(i)
        key = self._key(fields)
        try:
            data = self._read(i, fields[self._field])
        except OSError as error:
            raise BadRecord(key, f"cannot be read: {error.strerror}") from None
        extras = {name: value for name, value in fields.items() if name not in self._own_fields}
        return {**extras, "key": key, self._field: data, "captions": _captions(fields)}

    def captions(self, i: int) -> list[str]:
        """The captions of record `i`, without reading its file."""
        return _captions(self._fields(i))

    def _fields(self, i: int) -> dict[str, Any]:
        return _parse(self._manifest.read(*self._lines[i]))

    def _key(self, fields: dict[str, Any]) -> str:
        name = next((name for name in ("key", "id") if name in fields), self._field)
        if isinstance(fields.get(name), int) and not isinstance(fields[name], bool):
            return str(fields[name])
        given = _string(fields, name)
        return given + self._mark(fields) if self._mark and name == self._field else given

    def _read(self, i: int, name: str) -> bytes:
        if self._shard[i] != _IS_FILE:
            return self._shards[self._shard[i]].read(*self._places[i])
        with open(os.path.join(self._root, name), "rb") as file:
            return file.read()

    def _open(self, split: str | None, limit: int | None, max_bad_fraction: float) -> tuple:
        """Fills the arrays; returns the bad lines, each as `file:line` with its key."""
        refuse_compressed(self._manifest)
        with open(self.path, "rb") as file:
            total = sum(1 for line in file if line.strip())
        if not total:
            raise UserError(f"{self.path} is empty; give one JSON record a line")
        bad = SkipBudget(total, max_bad_fraction)
        first_line: dict[str, int] = {}  # key -> the line that has it
        shards: dict[str, tuple[int, dict]] = {}  # name -> its number and the tar's entries
        splits: set[str] = set()
        for number, begin, line in self._numbered_lines(total):
            fields: dict[str, Any] = {}
            try:
                fields = _parse(line)
                if split is not None:
                    splits.add(_string(fields, "split"))
                    if fields["split"] != split:
                        continue
                _captions(fields)
                if self._mark is not None:
                    self._mark(fields)  # its checks hold of lines with a key of their own, too
                key = self._key(fields)
                shard, place = self._locate(fields, shards)
                if key in first_line:
                    raise ValueError(f"repeats the key of line {first_line[key]}")
            except ValueError as error:
                named = fields.get("key", fields.get("id", fields.get(self._field)))
                key = f"{self.path}:{number}" + ("" if named is None else f" {named!r}")
                bad.skip(key, str(error))
                continue
            first_line[key] = number
            self._lines.append(begin, len(line))
            self._shard.append(shard)
            self._places.append(*place)
            if len(self) == limit:
                break
        if not len(self) and splits:
            raise UserError(
                f"{self.path} has no record of split {split!r}; it has {', '.join(sorted(splits))}"
            )
        if not len(self):
            raise UserError(f"{self.path} has no usable record: all {bad.count:,} lines are bad")
        return bad.keys

    def _numbered_lines(self, total: int) -> Iterator[tuple[int, int, bytes]]:
        """(line number from 1, offset of the line, the line) of every line that is not blank."""
        end = 0
        name = os.path.basename(self.path)
        # disable=None: no bar where nobody watches.
        bar = tqdm(total=total, desc=name, unit=" lines", delay=3, disable=None)
        with open(self.path, "rb") as file, bar:
            for number, line in enumerate(file, start=1):
                begin, end = end, end + len(line)
                if number == 1 and line.startswith(codecs.BOM_UTF8):  # some editors put one there
                    begin, line = len(codecs.BOM_UTF8), line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield number, begin, line
                    bar.update()

    def _locate(self, fields: dict, shards: dict) -> tuple[int, tuple[int, int]]:
        """(number of the shard, (offset, size)); raises `ValueError` where there is no file."""
        name = _inside(_string(fields, self._field), self._root)
        folder = self._root or "."
        if "shard" not in fields:
            if not os.path.isfile(os.path.join(self._root, name)):
                raise ValueError(f"names the {self._noun} {name!r}, which is not in {folder}")
            return _IS_FILE, (0, 0)
        shard = _inside(_string(fields, "shard"), self._root)
        if shard not in shards:
            path = os.path.join(self._root, shard)
            if not os.path.isfile(path):
                raise ValueError(f"names the shard {shard!r}, which is not in {folder}")
            index = TarIndex(path)
            shards[shard] = len(self._shards), index.entries
            self._shards.append(index.file)
        number, entries = shards[shard]
        if name not in entries:
            raise ValueError(
                f"names the {self._noun} {name!r}, which is not in the shard {shard!r}"
            )
        return number, entries[name]


def _inside(name: str, root: str) -> str:
    """The name, if it stays in the folder; a manifest from elsewhere must not open other files."""
    whole = os.path.isabs(name) and os.path.normpath(name).startswith(os.path.join(root or ".", ""))
    if (os.path.isabs(name) and not whole) or ".." in name.replace("\\", "/").split("/"):
        raise ValueError(
            f"names {name!r}, which leaves the folder: name one that holds it as the root"
        )
    return name


class _Slices:
    """(offset, size) pairs in 16 bytes each, where a list of tuples would take 120."""

    def __init__(self):
        self._offsets, self._sizes = array("q"), array("q")

    def append(self, offset: int, size: int) -> None:
        self._offsets.append(offset)
        self._sizes.append(size)

    def __getitem__(self, i: int) -> tuple[int, int]:
        return self._offsets[i], self._sizes[i]


def _parse(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8").rstrip())
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start + 1})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"is a JSON {type(fields).__name__}, not an object in braces")
    return fields


def _captions(fields: dict[str, Any]) -> list[str]:
    if "caption" in fields and "captions" in fields:
        raise ValueError("has both 'caption' and 'captions'; keep one")
    if "caption" in fields:
        return [_string(fields, "caption")]
    if "captions" not in fields and "label" in fields:
        _string(fields, "label")
        return []
    if "captions" not in fields:
        raise ValueError("lacks the field 'captions'")
    captions = fields["captions"]
    if not isinstance(captions, list):
        raise ValueError(f"has 'captions' of type {type(captions).__name__}, not a list of strings")
    if not captions:
        raise ValueError("has an empty list of captions")
    for i, caption in enumerate(captions):
        _check_string(caption, f"captions[{i}]")
    return captions


def _string(fields: dict[str, Any], name: str) -> str:
    if name not in fields:
        raise ValueError(f"lacks the field {name!r}")
    _check_string(fields[name], name)
    return fields[name]


def _check_string(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"has {name!r} of type {type(value).__name__}, not a string")
    if not value.strip():
        raise ValueError(f"has an empty {name!r}")
    try:
        # An escaped half of a surrogate pair is JSON, but could be neither tokenized nor written.
        value.isascii() or value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"has half a character (a lone surrogate) in {name!r}") from None
