"""Pictures and captions in Parquet files, on disk or behind URLs: Hugging Face's format of sets.

A row is a record. The picture is a column of bytes; or Hugging Face's struct {bytes, path}; or a
column of paths. Captions are a column of strings or of lists of strings, or several such columns.

What a row group is, to random access: Parquet compresses a column of a row group as a whole, so to
read one row is to read its row group. Files made for scanning (pyarrow writes up to 1,048,576 rows
a group) are therefore slow to shuffle; those with groups of some 16 pictures are not. What is done
about it here:

  - Pictures and all other columns are read apart, and only the columns that are asked for.
  - The row groups read last stay in memory, up to `cache_mb`, shared by all threads of a process.
  - `order` shuffles all records where row groups are small (`SMALL_GROUP_MB`). Where they are
    larger it shuffles the row groups, and the records within windows of as many groups as fit into
    half of the cache: each group is then read once an epoch, not once a record. Every process of a
    run reads every window.
  - A row group above `max_row_group_mb` is refused with the remedy.

G: row groups of all files, in the order of the files. N: records. H, W: height and width of a
picture. MB are 2**20 bytes, of values that are no longer compressed.
"""

from __future__ import annotations

import itertools
import operator
import os
import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from capjax.data import images
from capjax.data.files import MissingFile, expand, is_remote, open_file
from capjax.data.order import Shuffled
from capjax.data.parquet_file import Damaged, ParquetFile, check_columns, leaves, pyarrow
from capjax.data.row_groups import GroupCache, WindowShuffled
from capjax.errors import BadRecord, UserError

REWRITE = "rewrite it with smaller ones by `python -m capjax.data prepare`"
SMALL_GROUP_MB = 2  # up to here, reading a whole row group for one record costs about a seek
_MB = 2**20
_OPENERS = 16  # footers read at a time: behind a URL each is a round trip or two


class Source:
    """N records {key, image uint8 [H,W,3], captions, ...} in the order of the sorted files' rows.

    Args:
      paths: files, URLs or patterns of them, see `files.expand`.
      image: the column of pictures: bytes, a struct {bytes, path}, or paths.
      captions: the column of captions, or several, whose captions are joined. By default `captions`
        or else `caption`; where there is neither but a `label`, records have no captions.
      key: the column of strings or integers that name the records. By default `key` where there is
        one, or else the file and the row: "part-000.parquet:17".
      columns: what else stays with a record, under its own name; `label` does by itself where it
        stands in for captions.
      image_root: the folder or URL below which paths of pictures are; by default the file's folder.
      cache_mb: memory for row groups, of each process; two of the largest fit in any case.
      max_row_group_mb: the largest row group to accept.

    Raises `UserError` for what is no Parquet, cut short, without the named columns, of other types,
    with too large a row group, or without rows. `source[i]` raises `BadRecord` where the row has no
    picture or caption, its picture cannot be read or decoded, or its row group is damaged.
    """

    def __init__(
        self,
        paths: str | Sequence[str],
        image: str = "image",
        captions: str | Sequence[str] | None = None,
        key: str | None = None,
        columns: Sequence[str] = (),
        image_root: str | None = None,
        cache_mb: float = 256,
        max_row_group_mb: float = 256,
    ):
        pyarrow()
        if image_root is not None and not is_remote(image_root) and not os.path.isdir(image_root):
            raise UserError(f"image_root {os.fspath(image_root)!r} is not a folder")
        for name, value in (("cache_mb", cache_mb), ("max_row_group_mb", max_row_group_mb)):
            if not value > 0:
                raise UserError(f"parquet: {name}={value} is not above 0")
        names = expand(paths)
        self.files = _in_threads(ParquetFile, names, "opening")
        self._root, self._image = image_root, image
        there = self.files[0].footer().schema.to_arrow_schema().names
        self._captions = _caption_columns(captions, there)
        self._key = "key" if key is None and "key" in there else key
        if not self._captions and "label" in there:
            columns = (*columns, "label")
        self._extras = tuple(dict.fromkeys(columns))
        keys = () if self._key is None else (self._key,)
        self._texts = tuple(dict.fromkeys((*self._captions, *self._extras, *keys)))
        footers = _in_threads(self._row_groups, self.files, "reading footers")
        shape = [
            (number, group, rows, size)
            for number, groups in enumerate(footers)
            for group, (rows, size) in enumerate(groups)
            if rows
        ]
        if not shape:
            raise UserError(f"{names[0]}: there are no rows in the {len(names):,} file(s)")
        numbers, groups, rows, sizes = map(np.array, zip(*shape, strict=True))
        largest = int(sizes.argmax())
        if sizes[largest] > max_row_group_mb * _MB:
            raise UserError(
                f"{names[numbers[largest]]}: row group {groups[largest]} holds "
                f"{sizes[largest] / _MB:,.0f} MB in {rows[largest]:,} rows, more than "
                f"max_row_group_mb={max_row_group_mb:g}, and is read as a whole for each of them: "
                f"{REWRITE}"
            )
        self._file, self._group = numbers.astype(np.int32), groups.astype(np.int32)  # [G]
        self._first = np.concatenate([[0], np.cumsum(rows)])  # [G + 1]: its first record, the end
        self._group_bytes = sizes  # [G]
        self._capacity = max(int(cache_mb * _MB), 2 * int(sizes.max()))
        # For keys: the rows before a group in its own file [G], and how much all paths share.
        self._rows_before = self._first[:-1] - self._first[np.searchsorted(numbers, numbers)]
        self._shared = len(_common_folder(names))
        self._cache = GroupCache(self._capacity)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.encoded(i)
        try:
            return {**record, "image": images.decode(record["image"])}
        except ValueError as error:
            raise BadRecord(record["key"], str(error)) from None

    def encoded(self, i: int) -> dict[str, Any]:
        """The record with its picture as the bytes that are stored."""
        group, row = self._located(i)
        texts = self._part(group, row, self._texts)
        key = self._named(group, row, texts)
        captions = self._captions_of(key, group, row, texts)
        extras = {name: self._cell(group, row, texts, name) for name in self._extras}
        pictures = self._part(group, row, (self._image,))
        picture = self._cell(group, row, pictures, self._image)
        return {
            **extras,
            "key": key,
            "image": self._bytes(key, group, picture),
            "captions": captions,
        }

    def captions(self, i: int) -> list[str]:
        """The captions of record `i`, without reading its picture."""
        group, row = self._located(i)
        texts = self._part(group, row, self._texts)
        return self._captions_of(self._named(group, row, texts), group, row, texts)

    def order(self, seed: int, batch_size: int) -> Shuffled | WindowShuffled:
        """The order of a training stream; see the top of this file."""
        if self._group_bytes.mean() <= SMALL_GROUP_MB * _MB:
            return Shuffled(len(self), seed)
        window = self._capacity // 2 // int(self._group_bytes.max())
        return WindowShuffled(np.diff(self._first), window, seed)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}  # a worker process reads for itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _cache=GroupCache(state["_capacity"]))

    def _located(self, i: int) -> tuple[int, int]:
        """(row group, row in it)."""
        i = operator.index(i)
        place = i + len(self) if i < 0 else i
        if not 0 <= place < len(self):
            raise IndexError(f"record {i} of {len(self):,}")
        group = int(np.searchsorted(self._first, place, side="right")) - 1
        return group, int(place - self._first[group])

    def _place(self, group: int, row: int) -> str:
        path = self.files[self._file[group]].path
        return f"{path[self._shared :]}:{self._rows_before[group] + row}"

    def _part(self, group: int, row: int, columns: tuple[str, ...]) -> Any:
        """The pyarrow table of these columns of a row group."""
        file = self.files[self._file[group]]

        def read() -> tuple[Any, int]:
            footer = self._cache.get(("footer", file.path), lambda: _with_size(file.footer()))
            table = file.read(int(self._group[group]), columns, footer)
            return table, table.nbytes

        if not columns:
            return {}
        try:
            return self._cache.get((group, columns), read)
        except Damaged as error:
            raise BadRecord(
                self._place(group, row),
                f"row group {self._group[group]} of {file.path} is damaged ({error}); copy the "
                "file again",
            ) from None

    def _named(self, group: int, row: int, texts: Any) -> str:
        value = self._cell(group, row, texts, self._key) if self._key else None
        return self._place(group, row) if value is None else str(value)

    def _cell(self, group: int, row: int, table: Any, name: str) -> Any:
        try:
            return table[name][row].as_py()
        except UnicodeDecodeError:
            place = self._place(group, row)
            raise BadRecord(place, f"has text that is not UTF-8 in {name!r}") from None

    def _captions_of(self, key: str, group: int, row: int, texts: Any) -> list[str]:
        found: list[str] = []
        for name in self._captions:
            value = self._cell(group, row, texts, name)
            for caption in value if isinstance(value, list) else [value]:
                if caption is not None and not caption.strip():
                    raise BadRecord(key, f"has an empty caption in {name!r}")
                found += [] if caption is None else [caption]
        if self._captions and not found:
            raise BadRecord(key, f"has no caption in {' or '.join(map(repr, self._captions))}")
        return found

    def _bytes(self, key: str, group: int, picture: Any) -> bytes:
        if isinstance(picture, dict):
            picture = picture.get("bytes") or picture.get("path")
        if not picture:
            raise BadRecord(key, f"has no picture in {self._image!r}")
        if isinstance(picture, bytes):
            return picture
        root = self._root or posixpath.dirname(self.files[self._file[group]].path)
        if os.path.isabs(picture) or "://" in picture or ".." in picture.split("/"):
            # A set from elsewhere must not open other files.
            raise BadRecord(key, f"names the picture {picture!r}, which is not below the folder")
        path = posixpath.join(root, picture)
        try:
            if not is_remote(path):
                with open(path, "rb") as file:
                    return file.read()
            file = open_file(path)
            return file.read(0, file.size)
        except OSError as error:
            raise BadRecord(key, f"{path} cannot be read: {error.strerror}") from None
        except MissingFile as error:  # an outage of the store stops the run: no fault of the record
            raise BadRecord(key, str(error)) from None

    def _row_groups(self, file: ParquetFile) -> list[tuple[int, int]]:
        """(rows, bytes of our columns) of each row group, after the columns were checked."""
        footer = file.footer()
        if not footer.num_rows:  # whoever wrote it had nothing to tell the types from
            return []
        schema = footer.schema.to_arrow_schema()
        check_columns(schema, file.path, self._image, self._captions, self._texts)
        ours = leaves(footer, (self._image, *self._texts))
        groups = map(footer.row_group, range(footer.num_row_groups))
        return [
            (group.num_rows, sum(group.column(j).total_uncompressed_size for j in ours))
            for group in groups
        ]


def _common_folder(names: Sequence[str]) -> str:
    """The folder in which all of the sorted names lie, with its slash; "" where there is none."""
    pairs = zip(names[0].split("/")[:-1], names[-1].split("/")[:-1], strict=False)
    return "".join(f"{a}/" for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _with_size(footer: Any) -> tuple[Any, int]:
    return footer, footer.serialized_size


def _in_threads(function: Any, items: Sequence[Any], name: str) -> list[Any]:
    with ThreadPoolExecutor(_OPENERS) as pool:
        done = pool.map(function, items)
        return list(tqdm(done, total=len(items), desc=name, unit=" files", delay=3, disable=None))


def _caption_columns(given: str | Sequence[str] | None, names: Sequence[str]) -> tuple[str, ...]:
    if given is not None:
        return (given,) if isinstance(given, str) else tuple(given)
    found = [name for name in ("captions", "caption") if name in names][:1]
    if not found and "label" not in names:
        raise UserError(
            "parquet: no column is called captions, caption or label; name the one of the captions "
            f"among {', '.join(map(repr, names))}"
        )
    return tuple(found)
