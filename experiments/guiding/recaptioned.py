"""A data set with the captions that a captioner wrote about it, in place of its own.

    config.data.train = {
        "name": "experiments.guiding.recaptioned",
        "data": {"name": "capjax.data.manifest", "path": ...},
        "captions": "captions/",        what `python -m capjax.caption --data .. --out` filled
        "guidance_scale": 1.5,          of the scales in it; None: all captions of a picture
    }

A student that is trained on captions written with guidance writes such captions without it: one
pass of the decoder in place of two (distillation in the space of captions, beyond guiding, arXiv
2307.16686). Pictures that the captioner could not use are left out.

Raises `UserError` for a folder that is not finished, and for one without captions of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capjax.config import instantiate
from capjax.errors import UserError
from capjax.metrics.caption_folders import read_rows


class Source:
    """The records of `data`, a source section, that have captions in the folder `captions`."""

    def __init__(self, data: Mapping[str, Any], captions: str, guidance_scale: float | None = None):
        self._source = instantiate(data, "Source", where="the data of recaptioned")
        self._captions: dict[str, list[str]] = {}
        scales = set()
        for row in read_rows(Path(captions)):
            scales.add(row["guidance_scale"])
            if guidance_scale in (None, row["guidance_scale"]) and row["caption"].strip():
                self._captions.setdefault(row["image"], []).append(row["caption"])
        if not self._captions:
            raise UserError(
                f"{captions!r} has no captions at guidance_scale={guidance_scale}: it has those at "
                f"{', '.join(f'{scale:g}' for scale in sorted(scales)) or 'no scale'}"
            )
        self._kept = [i for i in range(len(self._source)) if self._key(i) in self._captions]
        if not self._kept:
            raise UserError(
                f"{captions!r} holds captions of other pictures than the data: none of "
                f"{len(self._source):,} records is among them"
            )

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record of the data, with the captions written about it."""
        record = self._source[self._kept[index]]
        return {**record, "captions": self._captions[record["key"]]}

    def captions(self, index: int) -> list[str]:
        """Those that were written."""
        return self._captions[self._key(self._kept[index])]

    def _key(self, index: int) -> str:
        """The record's key, without decoding its picture where the source can."""
        read = getattr(self._source, "encoded", self._source.__getitem__)
        return read(index)["key"]
