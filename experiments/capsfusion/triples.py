"""Texts to fine-tune a fuser on: the prompt with its two texts, and behind it the fused caption.

    config.data.train = {"name": "experiments.capsfusion.triples", "path": "fused/part-*.parquet"}

`path` is a pattern of Parquet files with the columns alt_text, caption and fused: what the pipeline
writes with a teacher's model; rows that the teacher left unfused (`fuse_status`) are passed over.
Without a path they are made up from the small world (`worlds`), with the script as the teacher.

Raises `UserError` for files without such columns or rows.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from typing import Any

from capjax.data.parquet_file import pyarrow
from capjax.errors import UserError
from experiments.capsfusion.pipeline import bare_prompt
from experiments.capsfusion.script import fuse
from experiments.capsfusion.worlds import Source as World

COLUMNS = ("alt_text", "caption", "fused")
FUSED = ("ok", "repaired")


class Source:
    """Records of one text and no picture. limit: at most so many of the files' rows, 0 for all."""

    def __init__(
        self, path: str = "", limit: int = 0, split: str = "train", size: int = 2000, seed: int = 0
    ):
        if path:
            self._texts = [text_of(*triple) for triple in read(path, limit)]
            if not self._texts:
                raise UserError(f"{path!r} holds no fused caption: run the pipeline first")
        else:
            world = World(split, size, "synthetic", seed=seed)
            pairs = ((world.alt_text(i), world.synthetic(i)) for i in range(size))
            self._texts = [text_of(alt, caption, fuse(alt, caption)) for alt, caption in pairs]

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"key": str(index), "captions": self.captions(index)}

    def captions(self, index: int) -> list[str]:
        """The one text."""
        return [self._texts[index]]


def text_of(alt_text: str, caption: str, fused: str) -> str:
    """What the fuser learns to go on with."""
    return f"{bare_prompt(alt_text, caption)} {fused}"


def read(path: str, limit: int = 0) -> Iterator[tuple[str, str, str]]:
    """(alt_text, caption, fused) of each row that the teacher fused."""
    _, pq = pyarrow()
    names = sorted(glob.glob(path))
    if not names:
        raise UserError(f"no file is called {path!r}: give the Parquet parts of a pipeline's run")
    count = 0
    for name in names:
        there = set(pq.read_schema(name).names)
        lacking = [column for column in COLUMNS if column not in there]
        if lacking:
            raise UserError(
                f"{name!r} has no column {lacking[0]!r}: run configs/curate/capsfusion.py"
            )
        status = ["fuse_status"] if "fuse_status" in there else []
        for row in pq.read_table(name, columns=[*COLUMNS, *status]).to_pylist():
            if row["alt_text"] and row.get("fuse_status", "ok") in FUSED:
                yield tuple(row[column] for column in COLUMNS)
                count += 1
                if count == limit:
                    return
