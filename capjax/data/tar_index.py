"""The index of one tar shard: which records it holds, and where each of their members lies.

A record is what members share up to the first dot of their base name: `a/000.jpg`, `a/000.txt` are
the record `a/000` with the members `jpg` and `txt` (WebDataset's rule, github.com/webdataset). Its
members may lie anywhere in the tar, in any order. Names without a dot or that begin with one, and
those in WebDataset's own `__...__`, belong to no record.

The index is one file of plain arrays that is mapped into memory: to open it costs its header alone,
whatever the number of records, and a record costs the pages that hold it.

    16 bytes   magic, length and CRC-32 of the header (little-endian)
    header     JSON: the tar's name and stamp, signatures, and where each array lies
    arrays     each from a multiple of 64 bytes on, little-endian, in the smallest type that fits

    signature    [N]    which of the header's signatures the record has
    first        [N]    the record's first row among the members, which follow as in its signature
    name_end     [N]    where the record's name ends in `names`
    names        [...]  all records' names one after another, as they stand in the tar
    offset, size, crc  [M]  of each member: where its content lies, and the CRC-32 of its tar header

A signature is what records have in common: a flaw of the name, and of each member its extension
and flaw, in the order of the extensions. Data sets have a handful, so that counting the good
records of a shard touches no array. Flaws are said after a name ("is empty"); none is "".

N: records. M: members of all records. Units: offsets and sizes are bytes.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import secrets
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from capjax.data.tar_headers import BLOCK, FILE, HARD_LINK, TarDamage, members
from capjax.errors import UserError
from capjax.whole_file import whole_file

VERSION = 1  # of the format and of the rules by which members become records

_MAGIC = b"CAPJAXTI"
_PRELUDE = struct.Struct("<8sII")
_ALIGN = 64
_ARRAYS = ("signature", "first", "name_end", "names", "offset", "size", "crc")
_OF_WEBDATASET = re.compile(rb"__[^/]*__($|/)")
# Members of a record usually lie side by side: one read for all is cheaper than one for each, as
# long as it does not fetch much that nobody asked for.
_NEARBY = 1 << 16


class Signature(NamedTuple):
    """What `count` records have in common; `members` are (extension, flaw), by extension."""

    flaw: str
    members: tuple[tuple[str, str], ...]
    count: int


@dataclass(frozen=True)
class Header:
    """What an index says of its tar without being mapped.

    tar: its base name. stamp: numbers and strings that change when it does. records: N. ignored:
    members that belong to no record. damage: why it could not be read to its end, or "".
    arrays: {name: (type, length, offset)}.
    """

    tar: str
    stamp: tuple
    records: int
    ignored: int
    damage: str
    signatures: tuple[Signature, ...]
    arrays: dict[str, tuple[str, int, int]]


def stamp_of(file: Any) -> tuple:
    """What tells that an index is of this very file; of a file that has no `stamp`, its size."""
    return tuple(getattr(file, "stamp", None) or (file.size,))


def build(file: Any) -> bytes:
    """The index of `file`, which has `path`, `size` and `read(offset, size)`."""
    records: dict[bytes, dict[bytes, tuple[int, int, int, str]]] = {}
    others: dict[bytes, tuple[int, int, int, str]] = {}  # hard links may lead to these
    ignored, damage = 0, ""
    try:
        for member in members(file):
            name, flaw = member.name.removeprefix(b"./"), member.kind
            place = (member.offset, member.size, member.crc)
            if flaw == HARD_LINK:
                *place, flaw = _entry(records, others, member.target) or (0, 0, 0, flaw)
            elif flaw == FILE and not member.size:
                flaw = "is empty"
            split = _split(name)
            if split is None:
                ignored += 1
                others[name] = (*place, flaw)
                continue
            entries = records.setdefault(split[0], {})
            if split[1] in entries:
                place, flaw = entries[split[1]][:3], "is there twice"
            entries[split[1]] = (*place, flaw)
    except TarDamage as error:
        damage = error.reason
    return _pack(file, records, ignored, damage)


def write(path: str, index: bytes) -> None:
    """Puts the index at `path`, whole or not at all, whoever else writes the same one meanwhile.

    Raises `UserError` where it cannot be written.
    """
    # A name of one's own: two programs in one partial file would leave a mixture of both.
    own = Path(f"{path}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with whole_file(own, "wb") as file:
            file.write(index)
        os.replace(own, path)
    except OSError as error:
        own.unlink(missing_ok=True)
        raise UserError(f"cannot write {path!r}: {error.strerror}") from None


def read_header(path: str) -> Header | None:
    """The header of the index at `path`; None where there is no whole index of this version."""
    try:
        with open(path, "rb") as file:
            return _header(file.read(1 << 16), os.fstat(file.fileno()).st_size, file)
    except OSError:
        return None


class ShardIndex:
    """An index in memory, or mapped into it from its file.

    Raises `UserError` where the file is gone or is not the index of that tar.
    """

    def __init__(self, place: str | bytes, tar: str, stamp: tuple):
        if isinstance(place, bytes):
            self._data, size = place, len(place)
        else:
            try:
                with open(place, "rb") as file:
                    self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):
                raise UserError(f"the index {place} is gone; start again") from None
            size = len(self._data)
        self.header = _header(self._data, size)
        if self.header is None or (self.header.tar, self.header.stamp) != (tar, stamp):
            where = place if isinstance(place, str) else "in memory"
            raise UserError(f"the index {where} is no longer that of {tar}; start again")
        for name in _ARRAYS:
            kind, length, offset = self.header.arrays[name]
            setattr(self, "_" + name, np.frombuffer(self._data, kind, length, offset))

    def name(self, record: int) -> str:
        """The record's name; bytes that are not UTF-8 are written as escapes."""
        begin = int(self._name_end[record - 1]) if record else 0
        name = self._names[begin : int(self._name_end[record])].tobytes()
        return name.decode("utf-8", "backslashreplace")

    def signature(self, record: int) -> int:
        """The number of the record's signature in the header."""
        return int(self._signature[record])

    def with_signatures(self, numbers: Sequence[int]) -> np.ndarray:
        """The records that have one of these signatures, in order."""
        chosen = np.zeros(len(self.header.signatures), bool)
        chosen[list(numbers)] = True
        return np.flatnonzero(chosen[self._signature]).astype(np.uint32)

    def read(self, file: Any, record: int, wanted: Sequence[int]) -> list[bytes]:
        """The content of the record's members, which are numbered as in its signature.

        Raises `UserError` where the tar is not the one that was indexed.
        """
        rows = [int(self._first[record]) + number for number in wanted]
        places = [(int(self._offset[row]), int(self._size[row])) for row in rows]
        begin = min(offset for offset, _ in places) - BLOCK
        end = max(offset + size for offset, size in places)
        if end - begin <= sum(size + BLOCK for _, size in places) + _NEARBY:
            data = memoryview(file.read(begin, end - begin))
            pieces = [data[o - BLOCK - begin : o + size - begin] for o, size in places]
        else:
            pieces = [memoryview(file.read(o - BLOCK, size + BLOCK)) for o, size in places]
        for row, (offset, _), piece in zip(rows, places, pieces, strict=True):
            # A tar may be replaced by one of the same size and time; then the captions of one
            # picture would go to another.
            if zlib.crc32(piece[:BLOCK]) != self._crc[row]:
                raise UserError(
                    f"{file.path} is not the tar that was indexed (another header before byte "
                    f"{offset:,}): remove its index and start again"
                )
        return [bytes(piece[BLOCK:]) for piece in pieces]


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """(record, extension in small letters), or None for a name that belongs to no record."""
    folder, slash, base = name.rpartition(b"/")
    stem, dot, extension = base.partition(b".")
    if not stem or not dot or (name[:2] == b"__" and _OF_WEBDATASET.match(name)):
        return None
    return folder + slash + stem, extension.lower()


def _entry(records: dict, others: dict, name: bytes) -> tuple[int, int, int, str] | None:
    """(offset, size, crc, flaw) of an earlier member."""
    name = name.removeprefix(b"./")
    split = _split(name)
    if split is None:
        return others.get(name)
    return records.get(split[0], {}).get(split[1])


def _flaw(name: bytes) -> str:
    if name.startswith(b"/"):
        return "has an absolute path as its name"
    if b".." in name and b".." in name.split(b"/"):
        return "has a name that leads out of its folder (..)"
    try:
        name.isascii() or name.decode("utf-8")
    except UnicodeDecodeError:
        return "has a name that is not UTF-8"
    return ""


def _pack(file: Any, records: dict, ignored: int, damage: str) -> bytes:
    numbers: dict[tuple, int] = {}
    signature, first, rows = [], [], []
    for name, entries in records.items():
        ordered = sorted(entries.items())
        kind = (_flaw(name), tuple((extension, entry[3]) for extension, entry in ordered))
        signature.append(numbers.setdefault(kind, len(numbers)))
        first.append(len(rows))
        rows += [entry[:3] for _, entry in ordered]
    offset, size, crc = np.array(rows, np.uint64).reshape(-1, 3).T
    return pack(
        os.path.basename(file.path),
        stamp_of(file),
        [
            (flaw, [(extension.decode("utf-8", "backslashreplace"), f) for extension, f in kind])
            for flaw, kind in numbers
        ],
        {
            "signature": np.array(signature, np.uint64),
            "first": np.array(first, np.uint64),
            "name_end": np.cumsum([len(name) for name in records], dtype=np.uint64),
            "names": np.frombuffer(b"".join(records), np.uint8),
            "offset": offset,
            "size": size,
            "crc": crc,
        },
        ignored,
        damage,
    )


def pack(
    tar: str,
    stamp: tuple,
    signatures: Sequence[tuple[str, Sequence[tuple[str, str]]]],
    arrays: dict[str, np.ndarray],
    ignored: int = 0,
    damage: str = "",
) -> bytes:
    """The bytes of an index of these arrays, which the top of this file describes."""
    counts = np.bincount(arrays["signature"].astype(np.int64), minlength=len(signatures))
    arrays = {name: _smallest(arrays[name]) for name in _ARRAYS}
    table, end = {}, 0
    for name, array in arrays.items():
        table[name] = (array.dtype.str, len(array), end)  # from the end of the header
        end += -(-array.nbytes // _ALIGN) * _ALIGN
    fields = {
        "version": VERSION,
        "tar": tar,
        "stamp": stamp,
        "records": len(arrays["signature"]),
        "ignored": ignored,
        "damage": damage,
        "signatures": [(*kind, int(count)) for kind, count in zip(signatures, counts, strict=True)],
        "arrays": table,
        "length": end,
    }
    header = json.dumps(fields).encode()
    header += b" " * (-(_PRELUDE.size + len(header)) % _ALIGN)
    pieces = [_PRELUDE.pack(_MAGIC, len(header), zlib.crc32(header)), header]
    for array in arrays.values():
        pieces += [array.data, bytes(-array.nbytes % _ALIGN)]
    return b"".join(pieces)


def _smallest(array: np.ndarray) -> np.ndarray:
    largest = int(array.max()) if len(array) else 0
    kind = next(k for k in ("<u1", "<u2", "<u4", "<u8") if largest <= np.iinfo(k).max)
    return np.ascontiguousarray(array, kind)


def _header(data: Any, total: int, file: Any = None) -> Header | None:
    """The header at the beginning of `data`; the rest of a long one is read from `file`."""
    if len(data) < _PRELUDE.size:
        return None
    magic, length, crc = _PRELUDE.unpack_from(data)
    if magic != _MAGIC:
        return None
    begin = _PRELUDE.size + length
    if begin > len(data) and file is not None and begin <= total:
        data += file.read(begin - len(data))
    header = data[_PRELUDE.size : begin]
    if len(header) != length or zlib.crc32(header) != crc:
        return None
    fields = json.loads(header)
    if fields["version"] != VERSION or begin + fields["length"] != total:
        return None
    return Header(
        tar=fields["tar"],
        stamp=tuple(fields["stamp"]),
        records=fields["records"],
        ignored=fields["ignored"],
        damage=fields["damage"],
        signatures=tuple(
            Signature(flaw, tuple((extension, f) for extension, f in kind), count)
            for flaw, kind, count in fields["signatures"]
        ),
        arrays={name: (kind, n, begin + at) for name, (kind, n, at) in fields["arrays"].items()},
    )
