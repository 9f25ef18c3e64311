"""The finished output of a pipeline, read back: its parts in order, and what is told of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capjax.curate.parts import read_metadata, read_settings
from capjax.data.parquet_file import pyarrow
from capjax.errors import UserError


class Finished:
    """The parts in `directory`; UserError for a folder without any."""

    def __init__(self, directory: Path | str):
        self.directory = Path(directory)
        self.settings = read_settings(directory)
        self.parts = sorted(self.directory.glob("part-*.parquet"))
        if not self.parts:
            raise UserError(f"{str(directory)!r} has no finished part yet: run the pipeline")

    @property
    def columns(self) -> dict[str, str]:
        """name -> type of what is written."""
        return self.settings["columns"]

    @property
    def expected_parts(self) -> int:
        return -(-self.settings["records"] // self.settings["part_size"])

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows in order, a part in memory at a time."""
        _, pq = pyarrow()
        for path in self.parts:
            yield from pq.read_table(path).to_pylist()

    def counts(self) -> dict[str, Counter]:
        """stage -> how many records went in and out and were bad, of all segments, in order."""
        found = {stage["name"]: Counter() for stage in self.settings["stages"]}
        for path in [*sorted(self.directory.glob("before-*/part-*.parquet")), *self.parts]:
            for stage, kind, count in read_metadata(path).get("counts", []):
                found[stage][kind] += count
        for path in self.directory.glob("before-*/decided-*.parquet"):
            told = read_metadata(path)
            found[told["stage"]].update({"in": told["in"], "out": told["out"]})
        return found

    def bad(self) -> Counter:
        """(stage, reason) -> how many records were left out for it."""
        found: Counter = Counter()
        for pattern in ("bad-*.jsonl", "before-*/bad-*.jsonl"):
            for path in sorted(self.directory.glob(pattern)):
                for line in path.read_bytes().splitlines():
                    told = json.loads(line)
                    found[told["stage"], told["error"]] += 1
        return found
