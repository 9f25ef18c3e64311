"""A folder of Parquet parts: records behind a pipeline, or behind its stages up to some point.

    DIR/pipeline.json         what the parts were made with
    DIR/part-00000.parquet    one for every `part_size` records of the source
    DIR/bad-00000.jsonl       only where a part has records that were left out as bad

A part appears when it is whole, and its bad records before it; a part that is there is finished.
In its metadata, under `capjax.curate`, are the pipeline with its stages, versions and prompts, the
seed and how many records went into and came out of each stage: nothing that depends on the engine,
the machine or the day.

Raises `UserError` for a folder of another pipeline, saying what differs, and for other files.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from capjax.curate.flow import Bad
from capjax.data.parquet_file import pyarrow
from capjax.decode.bulk_parts import jsonl
from capjax.errors import UserError
from capjax.whole_file import whole_file

SETTINGS = "pipeline.json"
METADATA = b"capjax.curate"
OWN = ("before-", "cache")  # folders of ours in the output


class PartFolder:
    """The parts of one segment of a pipeline over `records` records of a source.

    columns: name -> type. settings: JSON values that the parts depend on; None for a folder
    within another, whose settings hold for it.
    """

    def __init__(
        self,
        directory: Path | str,
        columns: Mapping[str, Any],
        *,
        records: int,
        part_size: int,
        settings: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ):
        pyarrow()
        self.directory, self.columns = Path(directory), dict(columns)
        self.ranges = [
            range(start, min(start + part_size, records)) for start in range(0, records, part_size)
        ]
        self._provenance = dict(provenance or {})
        self._settings = None
        if settings is not None:
            known = {**settings, "records": records, "part_size": part_size}
            self._settings = json.loads(json.dumps(known))
        self._check_folder()
        if self._settings is not None:
            self._check_settings()

    @property
    def missing(self) -> list[int]:
        """Numbers of the parts that are still to be made."""
        return [part for part in range(len(self.ranges)) if not self.path(part).is_file()]

    def path(self, part: int) -> Path:
        return self.directory / f"part-{part:0{self._digits}}.parquet"

    def bad_path(self, part: int) -> Path:
        return self.directory / f"bad-{part:0{self._digits}}.jsonl"

    @property
    def _digits(self) -> int:
        return max(5, len(str(len(self.ranges) - 1)))

    def write(
        self, part: int, rows: Sequence[Mapping[str, Any]], bad: Sequence[Bad], counts: Counter
    ) -> None:
        """A whole part, and the records that it lacks."""
        self.settle()
        if bad:
            lines = ({"key": b.key, "stage": b.stage, "error": b.reason} for b in bad)
            with whole_file(self.bad_path(part), "wb") as file:
                file.write(jsonl(lines))
        else:
            self.bad_path(part).unlink(missing_ok=True)  # of an attempt that was killed
        numbers = [[stage, kind, count] for (stage, kind), count in counts.items()]
        told = self._provenance | {"counts": sorted(numbers)}
        data = table_bytes(rows, self.columns, told)
        with whole_file(self.path(part), "wb") as file:
            file.write(data)

    def rows(self, part: int) -> list[dict[str, Any]]:
        """The rows of a finished part, with JSON columns read back."""
        return read_rows(self.path(part), self.columns)

    def column(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """Some columns of all parts."""
        found: dict[str, list[Any]] = {name: [] for name in names}
        kinds = {name: self.columns[name] for name in names}
        for part in range(len(self.ranges)):
            for row in read_rows(self.path(part), kinds):
                for name in names:
                    found[name].append(row[name])
        return found

    def known_bad(self) -> list[tuple[str, str]]:
        """(key, reason) of the records that finished parts lack."""
        missing, found = set(self.missing), []
        for part in range(len(self.ranges)):
            path = self.bad_path(part)
            if part not in missing and path.is_file():
                for line in path.read_bytes().splitlines():
                    told = json.loads(line)
                    found.append((told["key"], f"{told['stage']}: {told['error']}"))
        return found

    def _check_folder(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            names = sorted(p.name for p in self.directory.iterdir())
        except OSError as error:
            raise UserError(f"cannot write to {str(self.directory)!r}: {error.strerror}") from error
        others = [n for n in names if not n.startswith(OWN) and n != SETTINGS + ".partial"]
        if self._settings is not None and others and SETTINGS not in names:
            raise UserError(
                f"{str(self.directory)!r} holds other files, such as {others[0]!r}: choose an "
                "empty folder"
            )

    def settle(self) -> None:
        """Writes the settings before the first part: a pipeline that fails may be mended."""
        path = self.directory / SETTINGS
        if self._settings is not None and not path.is_file():
            with whole_file(path) as file:
                json.dump(self._settings, file, indent=1, ensure_ascii=False)

    def _check_settings(self) -> None:
        path = self.directory / SETTINGS
        if not path.is_file():
            return
        changed = differences(read_settings(self.directory), self._settings)
        if changed:
            raise UserError(
                f"{str(self.directory)!r} holds the output of another pipeline or source "
                f"({'; '.join(changed)}): choose another folder; with --cache "
                f"{str(self.directory / 'cache')!r} what has not changed is not paid again"
            )


def read_settings(directory: Path | str) -> dict[str, Any]:
    """What the parts of an output folder were made with."""
    path = Path(directory) / SETTINGS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{str(directory)!r} is no output of a pipeline: cannot read its {SETTINGS} ({error})"
        ) from error
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two settings, a stage by its name."""
    old, new = _flat(before), _flat(now)
    return [
        f"{name}: {json.dumps(old[name], ensure_ascii=False) if name in old else 'nothing'} there, "
        f"{json.dumps(new[name], ensure_ascii=False) if name in new else 'nothing'} now"
        for name in dict.fromkeys([*old, *new])
        if (name in old) != (name in new) or old[name] != new[name]
    ]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in settings.items() if name != "stages"}
    stages = settings.get("stages", [])
    flat["order of stages"] = [stage["name"] for stage in stages]
    for stage in stages:
        for name, value in stage.items():
            if isinstance(value, dict):
                flat |= {f"stage {stage['name']}.{name}.{k}": v for k, v in value.items()}
            elif name != "name":
                flat[f"stage {stage['name']}.{name}"] = value
    return flat


def table_bytes(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Any], metadata: Mapping[str, Any]
) -> bytes:
    """A Parquet file; the same rows give the same bytes."""
    pa, pq = pyarrow()
    kinds = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
        dict: pa.string(),
        list[str]: pa.list_(pa.string()),
        list[int]: pa.list_(pa.int64()),
        list[float]: pa.list_(pa.float64()),
    }
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    schema = schema.with_metadata({METADATA: json.dumps(metadata, sort_keys=True)})
    as_json = [name for name, kind in columns.items() if kind is dict]
    held = []
    for row in rows:
        own = {name: row[name] for name in columns}
        for name in as_json:
            if own[name] is not None:
                own[name] = json.dumps(own[name], sort_keys=True, ensure_ascii=False)
        held.append(own)
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(held, schema), stream)
    return stream.getvalue()


def read_rows(path: Path, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a part."""
    _, pq = pyarrow()
    rows = pq.read_table(path, columns=list(columns)).to_pylist()
    for name in [name for name, kind in columns.items() if kind is dict]:
        for row in rows:
            if row[name] is not None:
                row[name] = json.loads(row[name])
    return rows


def read_metadata(path: Path) -> dict[str, Any]:
    """What a part tells of how it was made."""
    _, pq = pyarrow()
    return json.loads(pq.read_schema(path).metadata[METADATA])
