"""One way to open files, wherever they lie: local paths, and URLs that fsspec knows.

    open_file("shards/000.tar")               a `tars.IndexedFile`
    open_file("gs://bucket/shards/000.tar")   a `RemoteFile`: every read is one ranged request
    expand("s3://bucket/part-{000..123}.parquet"), expand(["a/*.tar", "b/*.tar"])

Both kinds have `path`, `size`, `stamp` and `read(offset, size) -> bytes`, can be pickled and be
read from many threads at once, and raise `UserError` where the file is missing or is no longer the
file that was opened. Sizes and offsets are bytes.

Local files need nothing; URLs need fsspec and the store's own package (gcsfs for gs://, s3fs for
s3://, aiohttp for https://). Requests are repeated, and credentials and endpoints found, as that
package does it: by the environment, or by fsspec's own configuration file. Remote files are
meant for large files read in large pieces (tars, Parquet): a request takes tens of milliseconds.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from capjax.data.tars import IndexedFile
from capjax.errors import UserError

INSTALL = 'pip install "capjax[remote]"'
# How often a remote file is asked whether it is still the same, in seconds: a question costs a
# request, so it is not put before every read.
RECHECK_SECONDS = 60.0

# What stores call the mark of a file's content; the first that is there counts.
_MARKS = (
    "ETag",
    "etag",
    "generation",
    "md5Hash",
    "content_md5",
    "LastModified",
    "mtime",
    "created",
)
_GONE = (404, 410)  # what http says of files that are not there
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{([^{}]*)\}")


def is_remote(path: str | os.PathLike) -> bool:
    """Whether the path is a URL for fsspec; a file:// URL is a local path."""
    path = os.fspath(path)
    return "://" in path and not path.startswith("file://")


def open_file(path: str | os.PathLike) -> IndexedFile | RemoteFile:
    """The file at a local path or URL: `.path`, `.size`, `.read(offset, size)`."""
    if is_remote(path):
        return RemoteFile(os.fspath(path))
    return IndexedFile(os.fspath(path).removeprefix("file://"))


def read_text(path: str | os.PathLike) -> str:
    """The whole file as UTF-8 text, a byte order mark left out."""
    file = open_file(path)
    try:
        return file.read(0, file.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file.path} is not UTF-8 (byte {error.start + 1}); convert it") from None


def expand(patterns: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """The files that the patterns name, sorted.

    A pattern is a path or URL with `*`, `?`, `[...]` and `**` as in a shell, numbers `{000..123}`
    (both ends count, zeros in front kept) and choices `{train,val}`. A local file whose name
    happens to hold such characters is itself. In an http address `?` begins a query and only `*`
    is a wildcard. A URL without wildcards is taken as it is: asking for ten thousand files one by
    one takes minutes, and opening them asks anyway.

    Raises `UserError` for a pattern, or one file of a range, that names nothing, and for a file
    that is named twice.
    """
    given = [patterns] if isinstance(patterns, str | os.PathLike) else list(patterns)
    if not given:
        raise UserError("no file is named: give a path, a URL or a pattern")
    found: dict[str, str] = {}  # file -> the pattern that named it
    for pattern in map(os.fspath, given):
        for path in _named_by(pattern):
            if path in found:
                raise UserError(
                    f"{path} is named twice, by {found[path]!r} and by {pattern!r}: name it once"
                )
            found[path] = pattern
    return sorted(found)


class MissingFile(UserError):
    """There is no file at a URL, though the store answered: unlike other errors no outage."""


class RemoteFile:
    """A file behind a URL, read by ranged requests through fsspec.

    Whether it is still the file that was opened is asked every `RECHECK_SECONDS`, and whenever a
    read gives another number of bytes than was asked for.
    """

    def __init__(self, path: str):
        self.path = path
        self.size, self._mark = self._look()
        self._start()

    @property
    def stamp(self) -> list[int | str]:
        """[size, the store's mark of the content if it tells one]: what it must remain."""
        return [self.size] if self._mark is None else [self.size, self._mark]

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes from `offset`."""
        if time.monotonic() - self._looked > RECHECK_SECONDS:
            self._recheck()
        if not size:
            return b""
        try:
            data = self._call("cat_file", start=offset, end=offset + size)
        except FileNotFoundError:
            raise MissingFile(f"{self.path} is gone; it was there when it was opened") from None
        if len(data) != size:
            self._recheck()
            raise UserError(
                f"{self.path}: the store gave {len(data):,} bytes where {size:,} were asked for "
                f"(from byte {offset:,}); it may not serve parts of files: copy the file here"
            )
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size, "_mark": self._mark}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    def _recheck(self) -> None:
        with self._lock:  # of many threads that find it is time, one asks after another
            if (self.size, self._mark) != self._look():
                raise UserError(f"{self.path} has changed since it was opened; start again")
            self._looked = time.monotonic()

    def _look(self) -> tuple[int, str | None]:
        """(size, the store's mark of the content if it tells one)."""
        try:
            info = self._call("info", refresh=True)
        except FileNotFoundError:
            raise MissingFile(f"there is no file at {self.path}; check the address") from None
        if info.get("type") == "directory":
            raise UserError(f"{self.path} is not a file; name the file itself")
        if info.get("size") is None:
            raise UserError(f"{self.path}: the server does not tell its size; copy the file here")
        mark = next((str(info[name]) for name in _MARKS if info.get(name)), None)
        return int(info["size"]), mark

    def _call(self, method: str, **arguments: Any) -> Any:
        # fsspec keeps its file systems itself: to ask for one anew costs microseconds, and nothing
        # of it has to survive a pickle or a fork.
        system, inner = _file_system(self.path)
        if method == "info" and arguments.pop("refresh"):
            system.invalidate_cache(system._parent(inner))
        try:
            return getattr(system, method)(inner, **arguments)
        except Exception as error:  # each store's package has errors of its own
            cause, missing = error, isinstance(error, FileNotFoundError)
            if missing and self.path.startswith("http") and error.__cause__ is not None:
                # Over http fsspec calls every failure a missing file; its cause tells.
                cause = error.__cause__
                missing = getattr(cause, "status", None) in _GONE
            if missing:
                raise FileNotFoundError(self.path) from error
            raise UserError(
                f"{self.path} cannot be read ({type(cause).__name__}: {cause}); check the address, "
                "the network and the credentials"
            ) from error


def _file_system(path: str) -> tuple[Any, str]:
    """(the fsspec file system, the path inside it)."""
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise UserError(f"{path} is a URL, which fsspec opens: {INSTALL}") from None
    try:
        return url_to_fs(path)
    except ImportError as error:  # its text names the package of this kind of store
        raise UserError(f"{path} cannot be opened: {error}") from None
    except ValueError as error:
        raise UserError(f"{path} cannot be opened: {error}; check the address") from None


def _named_by(pattern: str) -> list[str]:
    if not is_remote(pattern):
        pattern = pattern.removeprefix("file://")
        if os.path.exists(pattern):
            return [_plain_file(pattern)]
    return list(itertools.chain.from_iterable(map(_globbed, _unbraced(pattern))))


def _plain_file(path: str) -> str:
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; name its files, such as {os.path.join(path, '*')}")
    return path


def _unbraced(pattern: str) -> list[str]:
    """The pattern with each {a..b} and {a,b} written out."""
    match = next((m for m in _BRACES.finditer(pattern) if _choices(m[1], pattern)), None)
    if match is None:
        return [pattern]
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [
        before + choice + rest
        for choice in _choices(match[1], pattern)
        for rest in _unbraced(after)
    ]


def _choices(inside: str, pattern: str) -> list[str]:
    if (numbers := _RANGE.fullmatch(inside)) is None:
        return inside.split(",") if "," in inside else []
    first, last = numbers.groups()
    if int(first) > int(last):
        raise UserError(f"{{{inside}}} in {pattern!r} counts backwards; give the smaller end first")
    return [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]


def _has_wildcard(url: str) -> bool:
    return "*" in url if url.startswith(("http://", "https://")) else glob.has_magic(url)


def _globbed(pattern: str) -> list[str]:
    if is_remote(pattern):
        found = _globbed_remote(pattern)
    elif glob.has_magic(pattern):
        found = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    elif os.path.exists(pattern):
        found = [_plain_file(pattern)]
    else:
        raise UserError(f"there is no file at {pattern}; check the path")
    if not found:
        raise UserError(f"no file matches {pattern!r}; check the pattern")
    return found


def _globbed_remote(url: str) -> list[str]:
    system, inner = _file_system(url)
    if not _has_wildcard(url):
        # In fsspec's own spelling, as a pattern would give it; a chain (cache::store) has none.
        return [url if "::" in url else system.unstrip_protocol(inner)]
    if "::" in url:
        raise UserError(f"{url!r}: a chain of URLs takes no wildcards; name numbers {{000..123}}")
    try:
        details = system.glob(inner, detail=True)
    except Exception as error:  # each store's package has errors of its own
        raise UserError(
            f"{url} cannot be listed ({type(error).__name__}: {error}); name the files one by one, "
            "or as numbers {000..123}"
        ) from error
    return [
        system.unstrip_protocol(path)
        for path, info in details.items()
        if info.get("type") != "directory"
    ]
