"""A folder of captions in parts, which is filled by one host or many, and survives every kill.

    DIR/settings.json                what the captions were made with, and of what
    DIR/part-00000.jsonl ..          or .parquet; one for every `part_size` records of the source
    DIR/bad-00000.jsonl              only where a part has pictures that could not be used:
                                     {"image": key, "error": reason} of each

A part appears when it is whole, and its bad pictures before it: a part that is there is finished,
and nothing else has to be remembered. Which records are in a part depends on the source alone, so
host I of N takes the parts I, I + N, I + 2 N, ... and no host needs to hear of another.

Raises `UserError` for a folder that holds captions of other settings, or other files, and for a
folder that cannot be written to.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from capjax.errors import UserError
from capjax.whole_file import whole_file

SETTINGS = "settings.json"
FORMS = ("jsonl", "parquet")
NOT_COMPARED = ("checkpoint", "encoder")  # folders may move: their weights are compared


class Shard(NamedTuple):
    """Host `index` of `count`."""

    index: int
    count: int


ALONE = Shard(0, 1)


class Parts:
    """The parts of `records` records that are this host's.

    settings: JSON values that captions depend on; a folder is gone on with only if they are the
    same, those of NOT_COMPARED left aside. columns: what a row holds, name -> type, for Parquet.
    """

    def __init__(
        self,
        directory: Path | str,
        settings: Mapping[str, Any],
        columns: Mapping[str, type],
        *,
        records: int,
        part_size: int,
        form: str = "jsonl",
        shard: Shard = ALONE,
    ):
        if form not in FORMS:
            raise UserError(f"unknown format {form!r}: choose one of {', '.join(FORMS)}")
        if form == "parquet":
            _pyarrow()  # before hours of work, not behind them
        self.directory, self.form, self.columns = Path(directory), form, dict(columns)
        self._count = -(-records // part_size)
        self.longest = min(part_size, records)  # of all hosts' parts
        mine = range(shard.index, self._count, shard.count)
        self.ranges = {
            part: range(part * part_size, min((part + 1) * part_size, records)) for part in mine
        }
        settings = {**settings, "records": records, "part_size": part_size, "format": form}
        # As they will read when they come back from the file.
        self._settings, self._shard = json.loads(json.dumps(settings)), shard
        self._check_folder()
        self._check_settings()

    @property
    def missing(self) -> dict[int, range]:
        """The parts that are still to be made, in order."""
        return {part: own for part, own in self.ranges.items() if not self.path(part).is_file()}

    @property
    def records(self) -> int:
        """How many records this host's parts have."""
        return sum(map(len, self.ranges.values()))

    def path(self, part: int) -> Path:
        """Of a part's captions."""
        return self._named("part", part, self.form)

    def known_bad(self) -> dict[str, str]:
        """key -> reason of the pictures that finished parts lack."""
        found = {}
        for part in sorted(self.ranges.keys() - self.missing.keys()):
            path = self._named("bad", part, "jsonl")
            if path.is_file():
                for line in path.read_bytes().splitlines():
                    told = json.loads(line)
                    found[told["image"]] = told["error"]
        return found

    def write(self, part: int, rows: Sequence[Mapping[str, Any]], bad: Mapping[str, str]) -> None:
        """A whole part: its captions, and the pictures that it lacks."""
        self._settle()
        if bad:
            lines = ({"image": key, "error": reason} for key, reason in bad.items())
            _write(self._named("bad", part, "jsonl"), jsonl(lines))
        data = jsonl(rows) if self.form == "jsonl" else parquet(rows, self.columns)
        _write(self.path(part), data)

    def _named(self, kind: str, part: int, suffix: str) -> Path:
        digits = max(5, len(str(self._count - 1)))
        return self.directory / f"{kind}-{part:0{digits}}.{suffix}"

    def _check_folder(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            others = [p.name for p in self.directory.iterdir() if not p.name.startswith("settings")]
        except OSError as error:
            raise UserError(f"cannot write to {str(self.directory)!r}: {error.strerror}") from error
        if others and not (self.directory / SETTINGS).is_file():
            raise UserError(
                f"{str(self.directory)!r} holds other files, such as {min(others)!r}: choose an "
                "empty folder"
            )

    def _settle(self) -> None:
        """Writes the settings before the first part: a job that fails earlier may be mended."""
        path = self.directory / SETTINGS
        if not path.is_file():
            # Hosts get here at the same time: each writes a file of its own, and the last to rename
            # it wins, for they all say the same, or are told so below.
            own = self.directory / f"settings-{self._shard.index}.json"
            _write(own, json.dumps(self._settings, indent=1, ensure_ascii=False).encode())
            os.replace(own, path)
        self._check_settings()

    def _check_settings(self) -> None:
        """Raises UserError where the folder's are others."""
        path = self.directory / SETTINGS
        if not path.is_file():
            return
        before, now = _settings_in(path), self._settings
        changed = [
            f"{name}: {_shown(before, name)} there, {_shown(now, name)} now"
            for name in before | now
            if name not in NOT_COMPARED and before.get(name) != now.get(name)
        ]
        if changed:
            raise UserError(
                f"{str(self.directory)!r} holds captions made with other settings "
                f"({'; '.join(changed)}): choose another folder, or give the settings that they "
                "were made with"
            )


def jsonl(rows: Any) -> bytes:
    """A line of JSON for each row."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    return "".join(lines).encode()


def parquet(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type]) -> bytes:
    """A Parquet file of the rows: the same columns in every part, whatever the rows of one hold."""
    pa, pq = _pyarrow()
    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_(), int: pa.int64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), stream)
    return stream.getvalue()


def _write(path: Path, data: bytes) -> None:
    try:
        with whole_file(path, "wb") as file:
            file.write(data)
    except UserError as error:
        raise UserError(
            f"{error}; the parts that are finished stay: make room and give the same command again"
        ) from error


def _settings_in(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}; choose another folder") from error
    if not isinstance(found, dict):
        raise UserError(f"{str(path)!r} holds no settings of captions: choose another folder")
    return found


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "nothing"


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise UserError(
            "Parquet needs the package pyarrow: pip install 'capjax[parquet]'"
        ) from error
    return pyarrow, pyarrow.parquet
