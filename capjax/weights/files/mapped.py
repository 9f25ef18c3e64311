"""Bytes of a file as read-only arrays that map it: only what is looked at is read.

The whole file is mapped once, and the mapping lives as long as an array into it. Going from
tensor to tensor therefore lets go of each one's memory, and holding thousands of them at a time
takes one file descriptor.
"""

from __future__ import annotations

import mmap
import weakref
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from capjax.errors import UserError


class Source(Protocol):
    """A stretch of bytes."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """The bytes [start, stop) as a read-only uint8 array [stop - start]."""


class MappedFile:
    """A whole file.

    Raises:
      UserError: it is absent, not a file, or became shorter than when it was opened.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with path.open("rb") as file:
                self.size = file.seek(0, 2)
        except OSError as error:
            raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
        self._mapping: weakref.ref[mmap.mmap] | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """The bytes [start, stop)."""
        if not 0 <= start <= stop <= self.size:
            raise ValueError(f"bytes {start} to {stop} of {self.size}")
        if start == stop:
            return np.frombuffer(b"", np.uint8)
        return np.frombuffer(self._mapped(), np.uint8)[start:stop]

    def _mapped(self) -> mmap.mmap:
        mapping = self._mapping() if self._mapping else None
        if mapping is None:
            try:
                with self.path.open("rb") as file:
                    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:  # ValueError: the file is empty now
                raise UserError(f"cannot read {str(self.path)!r}: {error}") from error
            if len(mapping) < self.size:
                raise UserError(
                    f"{str(self.path)!r} became shorter while it was open: write checkpoints under "
                    "a new name"
                )
            self._mapping = weakref.ref(mapping)
        return mapping


class Region(NamedTuple):
    """A stretch of a mapped file."""

    file: MappedFile
    start: int
    size: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """The bytes [start, stop) of the stretch."""
        if not 0 <= start <= stop <= self.size:
            raise ValueError(f"bytes {start} to {stop} of {self.size}")
        return self.file.read(self.start + start, self.start + stop)
