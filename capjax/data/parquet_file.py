"""One Parquet file, local or behind a URL: its row groups, and their columns on demand.

Raises `UserError`, naming the file and the remedy, for what is no whole Parquet file; sizes are
bytes of values that are no longer compressed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

from capjax.data.files import is_remote, open_file
from capjax.errors import UserError

INSTALL = 'pip install "capjax[parquet]"'
_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_SMALLEST = 12  # two magic words and the length of the footer


class Damaged(Exception):
    """A row group that cannot be decoded."""


class ParquetFile:
    """`path`, `footer() -> pyarrow.parquet.FileMetaData`, `read(group, columns, footer)`.

    Holds no footer itself, for a thousand files' would fill the memory; can be pickled and be read
    from many threads at once. After the file has been changed, every read raises `UserError`.
    """

    def __init__(self, path: str | os.PathLike):
        self._file = open_file(path)
        self.path = self._file.path

    def footer(self) -> Any:
        """The metadata at the end of the file."""
        pa, pq = pyarrow()
        size, path = self._file.size, self.path
        head = self._file.read(0, min(size, 4))
        tail = self._file.read(max(0, size - 4), min(size, 4))
        if _ENCRYPTED in (head, tail):
            raise UserError(f"{path} is encrypted Parquet; write it again without encryption")
        if head != _MAGIC:
            raise UserError(f"{path} is not a Parquet file: it begins with {head!r}")
        if tail != _MAGIC or size < _SMALLEST:
            raise UserError(f"{path} is cut short: its end is missing; copy it again")
        try:
            return pq.read_metadata(pa.PythonFile(_Stream(self._file), mode="r"))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} has a damaged footer ({error}); copy it again") from None

    def read(self, group: int, columns: Sequence[str], footer: Any) -> Any:
        """The pyarrow table of these columns of a row group; raises `Damaged`."""
        pa, pq = pyarrow()
        names = [footer.schema.column(j).path for j in leaves(footer, columns)]
        try:
            reader = pq.ParquetFile(
                pa.PythonFile(_Stream(self._file), mode="r"),
                metadata=footer,
                pre_buffer=is_remote(self.path),  # few large requests in the place of many
                page_checksum_verification=True,
            )
            return reader.read_row_group(group, names, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise Damaged(str(error)) from None


def leaves(footer: Any, columns: Sequence[str]) -> list[int]:
    """What Parquet stores for these columns: itself, or the fields of a struct or list."""
    below = tuple(f"{name}." for name in columns)
    paths = [footer.schema.column(j).path for j in range(footer.num_columns)]
    return [j for j, path in enumerate(paths) if path in columns or path.startswith(below)]


def check_columns(
    schema: Any, path: str, image: str, captions: Sequence[str], others: Sequence[str]
) -> None:
    """Raises `UserError` where a column is missing or cannot hold what it is named for."""
    for name in (image, *captions, *others):
        if name not in schema.names:
            raise UserError(
                f"{path} has no column {name!r}; it has {', '.join(map(repr, schema.names))}"
            )
    kind = schema.field(image).type
    fields = {field.name for field in kind} if pyarrow()[0].types.is_struct(kind) else set()
    if not (_is(kind, "binary", "string") or fields & {"bytes", "path"}):
        raise UserError(
            f"{path}: the column {image!r} is of type {kind}, where pictures are bytes, paths, or "
            "a struct of bytes and path"
        )
    for name in captions:
        kind = schema.field(name).type
        if not _is(kind.value_type if _is(kind, "list") else kind, "string"):
            raise UserError(
                f"{path}: the column {name!r} is of type {kind}, where captions are strings or "
                "lists of strings"
            )


def pyarrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet); raises `UserError` where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UserError(f"Parquet files are read with pyarrow: {INSTALL}") from None
    return pyarrow, pyarrow.parquet


def _is(kind: Any, *families: str) -> bool:
    """Whether an Arrow type is of one of the families, in any of its layouts."""
    types = pyarrow()[0].types
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = [f"is_{before}{name}" for name in families for before in ("", "large_", "fixed_size_")]
    return any(getattr(types, test)(kind) for test in tests if hasattr(types, test))


class _Stream(io.RawIOBase):
    """A file of `open_file` as pyarrow reads one.

    Never mapped into memory: a mapped file that becomes shorter would end the process.
    """

    def __init__(self, file: Any):
        self._source, self._offset = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._source.size}[whence]
        self._offset = begin + offset
        return self._offset

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._source.size - self._offset)
        data = self._source.read(self._offset, left if size < 0 else min(size, left))
        self._offset += len(data)
        return data
