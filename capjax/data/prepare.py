"""Any source as shards of another form, byte for byte: resumable, checksummed.

    DIR/part-00000-of-00012.tar ..   the shards, in the order of the source
    DIR/prepared.json                what was converted and how; of each finished shard its records,
                                     bytes and SHA-256; which records could not be used, and why

A shard appears when it is whole. A conversion that was killed goes on with the first shard that is
missing; one that finished is checked against its sums. Which records are in which shard depends on
the source alone: bad ones leave a gap, so that nothing moves.

Raises `UserError` for a folder that holds another conversion, and for too many bad records.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from capjax.checksums import sha256
from capjax.config import instantiate
from capjax.data.encoded import encoded
from capjax.data.shards import WRITERS
from capjax.data.skips import SkipBudget
from capjax.errors import BadRecord, UserError
from capjax.whole_file import whole_file

STATE = "prepared.json"


def prepare(
    section: Mapping[str, Any],
    directory: Path | str,
    form: str,
    *,
    records_per_shard: int = 1000,
    max_bad_fraction: float = 0.0,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the source of a config section as shards of a form; what prepared.json holds.

    form: "tar", "parquet" or "array_record".
    """
    if form not in WRITERS:
        raise UserError(f"unknown form {form!r}: choose one of {', '.join(WRITERS)}")
    if records_per_shard < 1:
        raise UserError(f"records_per_shard={records_per_shard} must be at least 1")
    directory = Path(directory)
    source = instantiate(dict(section), "Source", where="the source")
    asked = {
        "source": json.loads(json.dumps(dict(section))),
        "form": form,
        "records": len(source),
        "records_per_shard": records_per_shard,
    }
    state = _begun(directory, asked)
    skips = SkipBudget(len(source), max_bad_fraction)
    for key, reason in state["left_out"].items():
        skips.skip(key, reason)
    count = -(-len(source) // records_per_shard)
    bar = tqdm(total=len(source), unit="record", disable=None if progress else True)
    with bar:
        for number in range(count):
            first = number * records_per_shard
            stop = min(first + records_per_shard, len(source))
            name = f"part-{number:05}-of-{count:05}.{form}"
            if not _is_whole(directory / name, state["shards"].get(name)):
                left_out: dict[str, str] = {}
                records = _records(source, first, stop, skips, left_out)
                state["shards"][name] = _write(directory / name, records, form, first)
                state["left_out"] |= left_out
                _save(directory, state)
            bar.update(stop - first)
    return state


def _records(
    source: Any, first: int, stop: int, skips: SkipBudget, left_out: dict[str, str]
) -> Iterator[dict[str, Any]]:
    for index in range(first, stop):
        try:
            yield encoded(source, index)
        except BadRecord as error:
            left_out[error.key] = error.reason
            skips.skip(error.key, error.reason)


def _write(path: Path, records: Iterator[dict], form: str, first: int) -> dict[str, Any]:
    """What prepared.json says of the shard, once it is there."""
    partial = path.with_name(path.name + ".partial")
    counted = _Counted(records)
    try:
        WRITERS[form](partial, counted, first)
        told = {
            "records": counted.count,
            "bytes": partial.stat().st_size,
            "sha256": sha256(partial),
        }
        os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f"cannot write {str(path)!r}: {error.strerror or error}; what is finished stays, make "
            "room and start again"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return told


class _Counted:
    """An iterable that knows how many it gave."""

    def __init__(self, records: Iterator[dict]):
        self.records, self.count = records, 0

    def __iter__(self) -> Iterator[dict]:
        for record in self.records:
            self.count += 1
            yield record


def _begun(directory: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The state of the same conversion in this folder, or of a new one."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {str(directory)!r}: {error.strerror}") from error
    path = directory / STATE
    if path.is_file():
        state = json.loads(path.read_text())
        before = {name: state.get(name) for name in asked}
        if before != asked:
            changed = [name for name in asked if before[name] != asked[name]]
            raise UserError(
                f"{str(directory)!r} holds another conversion ({', '.join(changed)} differ): "
                "choose another folder"
            )
        return state
    if any(directory.iterdir()):
        raise UserError(f"{str(directory)!r} holds other files: choose an empty folder")
    state = {**asked, "left_out": {}, "shards": {}}
    _save(directory, state)
    return state


def _is_whole(path: Path, told: Mapping[str, Any] | None) -> bool:
    """Whether the shard is what prepared.json says of it."""
    if told is None or not path.is_file() or path.stat().st_size != told["bytes"]:
        return False
    return sha256(path) == told["sha256"]


def _save(directory: Path, state: Mapping[str, Any]) -> None:
    with whole_file(directory / STATE) as file:
        json.dump(state, file, indent=1)
