"""Entries of a zip archive as stretches of bytes; stored ones map the archive itself.

torch.save and numpy.savez store entries without compression, so that a tensor's bytes stand in
the archive as they are. Compressed entries are read through zipfile when they are asked for.
Layout: PKWARE's APPNOTE, 4.3.7: before an entry's bytes stands a local header of 30 bytes, the
name and an extra field, whose lengths are two little-endian uint16 at 26 and 28.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from capjax.errors import UserError
from capjax.weights.files.mapped import MappedFile, Region, Source

MAGIC = b"PK\x03\x04"
LOCAL_HEADER_BYTES = 30
ENCRYPTED = 0x1


class Compressed(NamedTuple):
    """An entry that must be unpacked in memory."""

    path: Path
    name: str
    size: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """The bytes [start, stop) of the unpacked entry."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.name) as file:
                file.seek(start)
                data = file.read(stop - start)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise _damaged(self.path, str(error)) from error
        if len(data) != stop - start:
            raise _damaged(self.path, f"its entry {self.name!r} is cut short")
        return np.frombuffer(data, np.uint8)


def entries(path: Path) -> dict[str, Source]:
    """All entries by name.

    Raises:
      UserError: the archive is cut short, damaged or encrypted.
    """
    file = MappedFile(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
        raise _damaged(path, str(error)) from error
    found: dict[str, Source] = {}
    for info in infos:
        if info.filename in found:
            raise _damaged(path, f"its entry {info.filename!r} stands twice")
        found[info.filename] = _source(file, info)
    return found


def _source(file: MappedFile, info: zipfile.ZipInfo) -> Source:
    if info.flag_bits & ENCRYPTED:
        raise UserError(f"{str(file.path)!r} is encrypted: unpack it and give what was inside")
    if info.compress_type != zipfile.ZIP_STORED:
        return Compressed(file.path, info.filename, info.file_size)
    start = info.header_offset
    if not 0 <= start <= file.size - LOCAL_HEADER_BYTES:
        raise _damaged(file.path, f"its entry {info.filename!r} lies outside of it")
    header = file.read(start, start + LOCAL_HEADER_BYTES).tobytes()
    start += LOCAL_HEADER_BYTES + sum(struct.unpack_from("<HH", header, 26))
    if not header.startswith(MAGIC) or start + info.file_size > file.size:
        raise _damaged(file.path, f"its entry {info.filename!r} lies outside of it")
    return Region(file, start, info.file_size)


def _damaged(path: Path, how: str) -> UserError:
    return UserError(f"{str(path)!r} is a damaged or shortened archive ({how}): download it again")
