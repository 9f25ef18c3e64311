"""Pictures of a source with the captions that a pipeline wrote of them: what a model is trained on.

    config.data.train = {
        "name": "capjax.curate.pairs",
        "data": {"name": "capjax.data.webdataset", "shards": ...},   what the pipeline read
        "path": "runs/curate/fused",                                  the folder that it filled
        "column": "fused",
    }

Pictures and captions are brought together by their keys, which are read once; a column of several
texts gives several captions. Records of the source that the pipeline left out are left out here.
Keys and captions are held in memory.

Raises `UserError` for a folder without the column and for one that was made of another source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capjax.config import instantiate
from capjax.curate.finished import Finished
from capjax.errors import UserError


class Source:
    """Records of `data` with the captions of `column`; limit: at most so many, 0 for all."""

    def __init__(self, data: Mapping[str, Any], path: str, column: str, limit: int = 0):
        output = Finished(path)
        if column not in output.columns:
            raise UserError(
                f"{path!r} has no column {column!r}: there are {', '.join(output.columns)}"
            )
        self.source = instantiate(data, "Source", where="the data of capjax.curate.pairs")
        told: dict[str, list[str]] = {}
        for row in output.rows():
            texts = row[column] if isinstance(row[column], list) else [row[column]]
            if texts := [text for text in texts if text]:
                told.setdefault(row["key"], []).extend(texts)
        self._places: list[int] = []
        self._captions: list[list[str]] = []
        for place in range(len(self.source)):
            if found := told.get(_key(self.source, place)):
                self._places.append(place)
                self._captions.append(found)
                if len(self._places) == limit:
                    break
        if not self._places:
            raise UserError(
                f"none of the {len(self.source):,} records of the data has a caption in {path!r}: "
                "give the source that the pipeline has read"
            )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.source[self._places[index]]
        return {**record, "captions": self._captions[index]}

    def captions(self, index: int) -> list[str]:
        """The captions of a record, without its picture."""
        return self._captions[index]


def _key(source: Any, place: int) -> str:
    """A record's key, without decoding its picture where the source offers that."""
    if hasattr(source, "key"):
        return source.key(place)
    read = source.encoded if hasattr(source, "encoded") else source.__getitem__
    return read(place)["key"]
