"""A job cut where a stage needs all records: what each piece reads, and the folder that it fills.

    source --segment--> DIR/before-STAGE/part-*.parquet --STAGE: all records--> decided-*.parquet
           --segment--> DIR/part-*.parquet

A part of one segment is made of the part of the same number before it, less the records that the
stage of all records dropped. Fields that cannot be written (pictures) are read from the source
again. Memory: of all records, only the inputs of such a stage are held at once.

Raises `UserError` for a source without a field that the pipeline reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from capjax.curate.calls import reason_of
from capjax.curate.flow import Bad, Item
from capjax.curate.parts import PartFolder, read_rows, table_bytes
from capjax.curate.pipeline import (
    SOURCE,
    Pipeline,
    Segment,
    fields_before,
    fields_needed_from,
    made_by_stage,
)
from capjax.curate.stage import MEMORY_ONLY, as_results
from capjax.errors import BadRecord, UserError
from capjax.whole_file import whole_file

INDEX, KEPT = "source_index", "kept"


class Piece:
    """A segment of the job: `read` gives its records, `folder` takes them."""

    def __init__(self, job: Job, number: int, segment: Segment):
        self.segment, self._job = segment, job
        self._before = job.pieces[number - 1] if number else None
        pipeline, first = job.pipeline, segment.first
        needed = fields_needed_from(pipeline, first)
        types = fields_before(pipeline, first)
        self._from_source = {
            field
            for field in needed & pipeline.source.keys()
            if not made_by_stage(pipeline, field, first)
            and (self._before is None or types[field] in MEMORY_ONLY)
        }
        behind = first + len(segment.stages)
        if segment.corpus is None:
            columns = {name: pipeline.types[name] for name in pipeline.columns}
            where = job.directory
        else:
            types = fields_before(pipeline, behind)
            kept = sorted(fields_needed_from(pipeline, behind))
            columns = {INDEX: int} | {f: types[f] for f in kept if types[f] not in MEMORY_ONLY}
            where = job.directory / f"before-{segment.corpus.name}"
        self.folder = PartFolder(
            where,
            columns,
            records=len(job.source),
            part_size=job.part_size,
            settings=job.settings if segment.corpus is None else None,
            provenance=pipeline.settings(),
        )
        # Chunks of one part follow each other: it is read once.
        self._rows_behind = lru_cache(8)(self._all_rows_behind)

    @property
    def is_first(self) -> bool:
        """Whether it reads the source."""
        return self._before is None

    def places(self, part: int) -> range:
        """Where the records of a part are: in the source, or among the rows before."""
        return self.folder.ranges[part] if self._before is None else self._rows_in(part)

    def read(self, part: int, places: range) -> tuple[list[Item], list[Bad]]:
        """Some records of a part."""
        if self._before is None:
            found = [self._job.record(index, self._from_source) for index in places]
        else:
            rows = self._before._rows_behind(part)
            found = [self._again(dict(rows[place])) for place in places]
        return (
            [one for one in found if isinstance(one, Item)],
            [one for one in found if isinstance(one, Bad)],
        )

    def rows_of(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """What the folder takes of the items."""
        return [item.fields | {INDEX: item.index} for item in items]

    def decide(self) -> None:
        """Asks the stage of all records, and writes down what it says of each part."""
        stage, folder = self.segment.corpus, self.folder
        if stage is None:
            return
        parts = range(len(folder.ranges))
        if all(self._decided(part).is_file() for part in parts):
            return
        columns = folder.column(list(stage.inputs))
        sizes = [len(read_rows(folder.path(part), {INDEX: int})) for part in parts]
        results = stage.corpus(columns)
        if len(results) != sum(sizes):
            raise UserError(
                f"stage {stage.name!r} gave {len(results)} results for {sum(sizes)} records"
            )
        checked = iter([as_results(stage, result) for result in results])
        nothing = dict.fromkeys(stage.outputs)
        for part, size in zip(parts, sizes, strict=True):
            own = [next(checked) for _ in range(size)]
            rows = [{KEPT: bool(one), **(one[0] if one else nothing)} for one in own]
            told = {"stage": stage.name, "in": size, "out": sum(row[KEPT] for row in rows)}
            data = table_bytes(rows, {KEPT: bool} | dict(stage.outputs), told)
            with whole_file(self._decided(part), "wb") as file:
                file.write(data)

    def _decided(self, part: int) -> Path:
        path = self.folder.path(part)
        return path.with_name(path.name.replace("part-", "decided-"))

    def _rows_in(self, part: int) -> range:
        return range(len(self._before._rows_behind(part)))

    def _all_rows_behind(self, part: int) -> list[dict[str, Any]]:
        rows = self.folder.rows(part)
        decided = read_rows(self._decided(part), {KEPT: bool} | dict(self.segment.corpus.outputs))
        return [
            row | {name: value for name, value in told.items() if name != KEPT}
            for row, told in zip(rows, decided, strict=True)
            if told[KEPT]
        ]

    def _again(self, row: dict[str, Any]) -> Item | Bad:
        index = row.pop(INDEX)
        if not self._from_source:
            return Item(index, row)
        found = self._job.record(index, self._from_source)
        return found if isinstance(found, Bad) else Item(index, found.fields | row)


class Job:
    """A pipeline over a source into a folder, whatever the engine."""

    def __init__(
        self,
        pipeline: Pipeline,
        source: Any,
        directory: Path | str,
        *,
        source_text: str = "",
        part_size: int = 1000,
    ):
        self.pipeline, self.source, self.directory = pipeline, source, Path(directory)
        self.part_size = part_size
        self.settings = pipeline.settings() | {"source": source_text}
        self.pieces: list[Piece] = []
        for number, segment in enumerate(pipeline.segments()):
            self.pieces.append(Piece(self, number, segment))
        self._check_source()

    def record(self, index: int, wanted: set[str]) -> Item | Bad:
        """Some fields of a record of the source."""
        read = self.pipeline.read
        try:
            if read is not None:
                record = read(self.source, index)
            elif "image" not in wanted and hasattr(self.source, "encoded"):
                record = self.source.encoded(index)
            else:
                record = self.source[index]
        except BadRecord as error:
            return Bad(index, error.key, SOURCE, error.reason)
        except Exception as error:
            return Bad(index, f"record {index}", SOURCE, reason_of(error))
        missing = wanted - record.keys()
        if missing:
            return Bad(index, record["key"], SOURCE, f"it has no field {min(missing)!r}")
        return Item(index, {field: record[field] for field in wanted | {"key"}})

    def _check_source(self) -> None:
        """One record that can be read must have all fields, before hours of work."""
        wanted = fields_needed_from(self.pipeline, 0) & self.pipeline.source.keys()
        for index in range(min(len(self.source), 10)):
            found = self.record(index, wanted)
            if isinstance(found, Item):
                return
            if found.stage == SOURCE and found.reason.startswith("it has no field"):
                raise UserError(
                    f"the source's records have no field that pipeline {self.pipeline.name!r} "
                    f"reads: of {found.key!r}, {found.reason}"
                )
