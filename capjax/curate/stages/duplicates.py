"""Near duplicates as stages: of captions by MinHash, of pictures by perceptual hashes.

    picture_hashes()                      fields phash and dhash, 16 hexadecimal digits each
    SamePictures(), SameCaptions(field)   drop all but the first of each group, or tell

`capjax.curate.dedup` says what near means and which of a group stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capjax.curate.dedup.groups import Groups, group_hashes
from capjax.curate.dedup.picture_hash import KINDS, to_hex
from capjax.curate.dedup.stages import duplicate_captions
from capjax.curate.stage import Stage


def picture_hashes(name: str = "picture hashes", place: str = "threads") -> Stage:
    """phash and dhash of the picture."""
    return Stage(name, _hash, {"image": np.ndarray}, dict.fromkeys(KINDS, str), place=place)


def _hash(image: np.ndarray) -> Mapping:
    return {kind: to_hex(function(image)) for kind, function in KINDS.items()}


class _Duplicates:
    """drop=False keeps all records and gives `output`, the key of the record each repeats."""

    place, cached, version = "corpus", False, "1"

    def __init__(self, name: str, inputs: Mapping[str, Any], drop: bool, output: str):
        self.name, self._drop, self._output = name, drop, output
        self.inputs = {"key": str, **inputs}
        self.outputs = {} if drop else {output: str}

    def _told(self, found: Groups, keys: Sequence[str]) -> list[dict[str, Any] | None]:
        leaders = found.leader.tolist()
        if self._drop:
            return [{} if leader == i else None for i, leader in enumerate(leaders)]
        return [
            {self._output: None if leader == i else keys[leader]}
            for i, leader in enumerate(leaders)
        ]


class SameCaptions(_Duplicates):
    """Captions whose runs of words or characters largely agree; see `duplicate_captions`."""

    def __init__(
        self,
        field: str = "caption",
        *,
        threshold: float = 0.8,
        size: int = 2,
        unit: str = "word",
        drop: bool = True,
        output: str = "duplicate_of",
        name: str = "",
    ):
        super().__init__(name or f"same {field}", {field: str}, drop, output)
        self._field = field
        self.params = {"threshold": threshold, "size": size, "unit": unit, "drop": drop}

    def corpus(self, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any] | None]:
        """What to do with each record."""
        how = {name: self.params[name] for name in ("threshold", "size", "unit")}
        found = duplicate_captions(_Texts(columns[self._field]), **how)
        return self._told(found, columns["key"])


class SamePictures(_Duplicates):
    """Pictures both of whose hashes are within `distance` bits."""

    def __init__(
        self,
        *,
        distance: int = 10,
        drop: bool = True,
        output: str = "duplicate_of",
        name: str = "same pictures",
    ):
        super().__init__(name, dict.fromkeys(KINDS, str), drop, output)
        self.params = {"distance": distance, "drop": drop}

    def corpus(self, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any] | None]:
        """What to do with each record."""
        hashes = [np.array([int(h, 16) for h in columns[kind]], np.uint64) for kind in KINDS]
        found = group_hashes(np.stack(hashes, axis=1), self.params["distance"])
        return self._told(found, columns["key"])


class _Texts:
    """A column as the source that `duplicate_captions` reads."""

    def __init__(self, texts: Sequence[str]):
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def captions(self, index: int) -> list[str]:
        return [self._texts[index]]
