"""A data set in WebDataset tar shards, as img2dataset and many publishers write them, by index.

    config.data.train = {
        "name": "capjax.data.webdataset", "shards": "cc12m/cc12m-{00000..01242}.tar",
    }

Members of a tar that share their name up to the first dot of the base name are one record:
`000000012.jpg` its picture, `000000012.txt` its caption, `000000012.json` whatever else is known
(see `tar_index` for the rule and `webdataset_fields` for the captions). Each tar is indexed once,
so that any record is one read: the set shuffles over all its shards and resumes to the example.

Records of which something is missing, empty, there twice or oddly named are found on opening,
counted and named; those whose caption or picture cannot be decoded when they are read. A tar that
is cut short or damaged gives the records before the damage. How many it lost nobody knows: counted
are as many as it has fewer than the middle one of the whole shards, and at least one.

N: records. H, W: height and width of a picture.
"""

from __future__ import annotations

import functools
import logging
import operator
import os
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from capjax.data import images
from capjax.data.files import expand, is_remote, open_file
from capjax.data.tar_index import Header, ShardIndex, Signature, stamp_of
from capjax.data.tar_index_build import Kept, is_index, open_indices
from capjax.data.webdataset_fields import Fields, Plan
from capjax.errors import BadRecord, UserError

log = logging.getLogger(__name__)

# Each holds a descriptor, of which a process may have 1,024; the tars themselves hold 128.
_OPEN_INDICES = 256
_NAMED = 3  # records named for each reason in the log


class _Shard(NamedTuple):
    name: str  # as keys of its records begin
    file: Any
    place: str | bytes  # of its index
    stamp: tuple
    plans: tuple[Plan | str, ...]  # of each signature, or why its records are bad


class Source:
    """N records {key, image uint8 [H,W,3], captions, ...} in the order of shards and their members.

    Args:
      shards: the tars: paths, URLs and patterns such as "a/*.tar" and "a-{00000..01242}.tar".
      caption: where captions stand: "txt", "txt:lines", "txt:joined", "json:field", or a list of
        these; None for records without captions.
      image: the picture's extension; by default the one that every record has but one of.
      index_dir: a folder for the indices where the shards' own cannot be written to.
      max_bad_fraction: the share of the records that may be unusable on opening.
      index_processes: how many processes build missing indices, 0 for threads.

    `key` is "shard/name", such as "cc12m-00000/000000012"; the shard's folder stands before it
    where shards of different folders have the same name.

    Raises `UserError` for missing and compressed shards, for too many bad records (naming the
    first), and where no record is left. `source[i]` raises `BadRecord` where that record's members
    cannot be decoded, and `UserError` where its tar has changed.
    """

    def __init__(
        self,
        shards: str | os.PathLike | Sequence[str | os.PathLike],
        caption: str | Sequence[str] | None = "txt",
        image: str | None = None,
        index_dir: str | None = None,
        max_bad_fraction: float = 0.0,
        index_processes: int | None = None,
    ):
        if not 0.0 <= max_bad_fraction <= 1.0:
            raise UserError(f"max_bad_fraction={max_bad_fraction} is not between 0 and 1")
        self._fields = Fields(caption, image)
        # A pattern such as "folder/*" also matches the indices that an earlier run left there.
        files = [open_file(path) for path in expand(shards) if not is_index(path)]
        kept = open_indices(files, index_dir, index_processes)
        self._signatures: dict[Signature, Plan | str] = {}
        self._shards = [
            _Shard(name, file, place, stamp_of(file), self._plans(header))
            for name, file, (header, place) in zip(_names(files), files, kept, strict=True)
        ]
        good = [
            sum(signature.count for signature, plan in _kinds(header, shard) if _is_good(plan))
            for (header, _), shard in zip(kept, self._shards, strict=True)
        ]
        self._first = np.cumsum([0, *good])  # of each shard's records, and the end
        self.bad_records = self._count_bad(kept, max_bad_fraction)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.encoded(i)
        try:
            return {**record, "image": images.decode(record["image"])}
        except ValueError as error:
            raise BadRecord(record["key"], str(error)) from None

    def encoded(self, i: int) -> dict[str, Any]:
        """The record with its picture as the bytes that the tar holds."""
        shard, index, record = self._find(i)
        key = f"{shard.name}/{index.name(record)}"
        number = index.signature(record)
        plan = shard.plans[number]
        wanted = (plan.image, *plan.captions, *plan.others)
        image, *rest = index.read(shard.file, record, wanted)
        captions, others = rest[: len(plan.captions)], rest[len(plan.captions) :]
        fields = self._fields.others(key, index.header.signatures[number], plan, others)
        return {
            **fields,
            "key": key,
            "image": image,
            "captions": self._fields.captions(key, captions),
        }

    def captions(self, i: int) -> list[str]:
        """The captions of record `i`, without reading its picture."""
        shard, index, record = self._find(i)
        plan = shard.plans[index.signature(record)]
        if not plan.captions:
            return []
        contents = index.read(shard.file, record, plan.captions)
        return self._fields.captions(f"{shard.name}/{index.name(record)}", contents)

    def bad(self) -> Iterator[tuple[str, str]]:
        """(key, reason) of each record, and (name, reason) of each tar, that opening found bad."""
        for shard in self._shards:
            yield from _bad_of(shard)

    def _plans(self, header: Header) -> tuple[Plan | str, ...]:
        return tuple(
            self._signatures.setdefault(kind, self._fields.plan(kind))
            for kind in (signature._replace(count=0) for signature in header.signatures)
        )

    def _find(self, i: int) -> tuple[_Shard, ShardIndex, int]:
        """(the shard, its index, the record's number there)."""
        position = operator.index(i)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"record {i} of {len(self):,}")
        number = int(np.searchsorted(self._first, position, side="right")) - 1
        shard = self._shards[number]
        good = tuple(n for n, plan in enumerate(shard.plans) if _is_good(plan))
        index, chosen = _opened(shard, None if len(good) == len(shard.plans) else good)
        record = position - int(self._first[number])
        return shard, index, record if chosen is None else int(chosen[record])

    def _count_bad(self, kept: Sequence[Kept], max_bad_fraction: float) -> int:
        """How many records are bad or lost; logs them by their reason and checks their share."""
        headers = [header for header, _ in kept]
        whole = [header.records for header in headers if not header.damage]
        usual = statistics.median_low(whole) if whole else 0
        count: dict[str, int] = {}
        example: dict[str, list[str]] = {}
        first = None
        for header, shard in zip(headers, self._shards, strict=True):
            bad = {
                plan: signature.count
                for signature, plan in _kinds(header, shard)
                if not _is_good(plan)
            }
            if header.damage:
                bad[header.damage] = max(1, usual - header.records)
            if not bad:
                continue
            for reason, number in bad.items():
                count[reason] = count.get(reason, 0) + number
            if any(len(example.get(reason, ())) < _NAMED for reason in bad):
                for key, reason in _bad_of(shard, _NAMED):
                    first = first or (key, reason)
                    if len(example.setdefault(reason, [])) < _NAMED:
                        example[reason].append(key)
        for reason, number in count.items():
            names = ", ".join(map(repr, example[reason]))
            log.warning("%s records left out: each %s; such as %s", f"{number:,}", reason, names)
        lost = sum(count.values())
        total = len(self) + lost
        if lost > max_bad_fraction * total + 1e-9:
            raise UserError(
                f"{lost:,} of {total:,} records could not be used (first: {first[0]!r}: "
                f"{first[1]}), more than max_bad_fraction={max_bad_fraction:g} allows; repair them "
                "or raise it"
            )
        if not len(self):
            raise UserError(
                f"{self._shards[0].file.path} and the other shards, {len(headers):,} in all, have "
                "no record: members named like 000.jpg and 000.txt would be one"
            )
        return lost


@functools.lru_cache(maxsize=_OPEN_INDICES)
def _opened(
    shard: _Shard, signatures: tuple[int, ...] | None
) -> tuple[ShardIndex, np.ndarray | None]:
    """The mapped index, and those of its records that have these signatures (None: all)."""
    index = ShardIndex(shard.place, os.path.basename(shard.file.path), shard.stamp)
    return index, None if signatures is None else index.with_signatures(signatures)


def _bad_of(shard: _Shard, limit: int | None = None) -> Iterator[tuple[str, str]]:
    """(key, reason) of the shard's bad records, of each kind the first `limit`; and its damage."""
    index, _ = _opened(shard, None)
    for number, reason in enumerate(shard.plans):
        if not _is_good(reason):
            for record in index.with_signatures([number])[:limit]:
                yield f"{shard.name}/{index.name(record)}", reason
    if index.header.damage:
        yield shard.name, index.header.damage


def _is_good(plan: Plan | str) -> bool:
    return not isinstance(plan, str)


def _kinds(header: Header, shard: _Shard) -> Iterator[tuple[Signature, Plan | str]]:
    return zip(header.signatures, shard.plans, strict=True)


def _names(files: Sequence[Any]) -> list[str]:
    """What the shards' keys begin with: their base names, or their paths where those are equal."""
    names = [os.path.basename(file.path).removesuffix(".tar") for file in files]
    if len(set(names)) == len(names):
        return names
    paths = [file.path if is_remote(file.path) else os.path.abspath(file.path) for file in files]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UserError(f"the shard {twice} is given twice: name it once")
    parts = [path.split("/") for path in paths]
    common = next(n for n, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1)
    names = ["/".join(part[common:]) for part in parts]
    short = [name.removesuffix(".tar") for name in names]
    return short if len(set(short)) == len(short) else names
