"""Random access into uncompressed tar files through an index of offsets.

A tar is read once, headers only, into {member name: (offset, size)}; after that any member is one
positioned read, so a data set in tar shards shuffles globally and resumes at any record. Both
classes can be pickled and read from many threads at once.

Units: offsets and sizes are bytes.
"""

from __future__ import annotations

import functools
import os

from capjax.data.tar_headers import FILE, HARD_LINK, SPARSE, TarDamage, members
from capjax.errors import UserError

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
# Descriptors kept open in a process: far below the usual limit of 1,024, however many the shards.
_OPEN_FILES = 128


class IndexedFile:
    """A file whose offsets have been noted, and which therefore must stay as it was then.

    `path`, `size`, `stamp`, and `read(offset, size) -> bytes`.

    Raises `UserError` where the file is missing, unreadable or a folder, and on a read after it has
    been changed.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}; check the path") from None
        if not os.path.isfile(self.path):
            raise UserError(f"{self.path} is not a file; name the file itself")
        self.size = status.st_size
        self._stamp = _stamp(status)

    @property
    def stamp(self) -> list[int]:
        """[size, time of the last change in nanoseconds]: what it must remain."""
        return list(self._stamp)

    def will_read(self, offset: int, size: int) -> None:
        """Asks the system to fetch these bytes meanwhile, where it can."""
        if hasattr(os, "posix_fadvise"):
            number = _open(self.path, self._stamp).number
            os.posix_fadvise(number, offset, size, os.POSIX_FADV_WILLNEED)

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes from `offset`."""
        descriptor = _open(self.path, self._stamp)  # held: the cache may drop it meanwhile
        # Asked at every read (a microsecond): a file edited in place keeps its descriptor valid,
        # and old offsets would cut pieces out of the middle of its records.
        if _stamp(os.fstat(descriptor.number)) != self._stamp:
            raise UserError(f"{self.path} has changed since it was opened; start again")
        pieces = []
        while size:  # one round, but for reads of 2 GiB and for mounts that hand out less
            piece = os.pread(descriptor.number, size, offset)
            if not piece:
                raise UserError(f"{self.path} has become shorter while it was read; start again")
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def refuse_compressed(file: IndexedFile) -> None:
    """Raises `UserError` where the file begins as a compressed one does."""
    head = file.read(0, min(file.size, 8))
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise UserError(
                f"{file.path} is compressed with {name}, which allows no random access; unpack it"
            )


class TarIndex:
    """The regular files inside one uncompressed tar: `read(name) -> bytes`, `entries`, `len`, `in`.

    A leading "./" of a member's name is dropped. Hard links read as the member that they repeat;
    folders, symbolic links and devices are not listed. Of two members of one name the later
    counts, as it would on extraction.

    Raises `UserError`, naming the tar and the remedy, where it is missing, compressed, no tar, cut
    short or damaged.
    """

    def __init__(self, path: str | os.PathLike):
        self.file = IndexedFile(path)
        self.entries: dict[str, tuple[int, int]] = _read_headers(self.file)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def read(self, name: str) -> bytes:
        """The bytes of member `name`; raises `KeyError` where there is none."""
        return self.file.read(*self.entries[name])


def _read_headers(file: IndexedFile) -> dict[str, tuple[int, int]]:
    refuse_compressed(file)
    entries = {}
    try:
        for member in members(file):
            name = _decoded(member.name)
            if member.kind == FILE:
                entries[name] = (member.offset, member.size)
            elif member.kind == HARD_LINK and (target := _decoded(member.target)) in entries:
                entries[name] = entries[target]
            elif member.kind == SPARSE:
                raise UserError(
                    f"{file.path}: member {name!r} is stored sparse; write the tar again without "
                    "--sparse"
                )
    except TarDamage as damage:
        raise UserError(f"{file.path} {damage.reason}") from None
    return entries


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape").removeprefix("./")


class _Descriptor:
    """An open descriptor, closed when the last thread that reads through it lets go of it."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "number"):
            os.close(self.number)


@functools.lru_cache(maxsize=_OPEN_FILES)
def _open(path: str, stamp: tuple[int, int]) -> _Descriptor:
    """Descriptors are shared by all that read a file; eviction never closes one still in use.

    `stamp` is part of the cache's key: whoever indexes a replaced file anew gets the new file.
    """
    try:
        return _Descriptor(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; it was there when it was indexed") from None


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
