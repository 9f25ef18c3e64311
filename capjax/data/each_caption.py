"""A source whose records are (picture, caption) pairs: each caption of each record is one example.

    config.data.train = {
        "name": "capjax.data.each_caption",
        "data": {"name": "capjax.data.manifest", "path": ...},
    }

An epoch is then one pass over all captions, in which a picture with n captions is seen n times, as
CLIP- and BLIP-like code trains on COCO. The pairs are numbered record by record; a pair's key is
its record's with the caption's number, "dog.jpg#0". Opening asks `data` for the captions of every
record once; 8 bytes a record are kept.

Raises `UserError` where a mixture is to be taken apart: wrap each of its sources instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from capjax.config import instantiate
from capjax.errors import BadRecord, UserError


class EachCaption:
    """The pairs of an open source. Records without captions have no pairs."""

    def __init__(self, source: Any):
        if hasattr(source, "names"):
            raise UserError(
                "each_caption cannot take a mixture apart, which has an order of its own: wrap "
                "each source of the mixture instead"
            )
        self.source = source
        if hasattr(source, "encoded"):  # only then does this source offer it, too
            self.encoded = self._encoded
        bar = tqdm(
            range(len(source)), desc="counting captions", unit=" records", delay=3, disable=None
        )
        counts = np.fromiter((len(source.captions(i)) for i in bar), np.int64, len(source))
        self._first = np.concatenate([[0], np.cumsum(counts)])  # the first pair of each record

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record with one caption; BadRecord where its captions are others than at opening."""
        record, number = self.pair(index)
        return self._one(self.source[record], record, number)

    def _encoded(self, index: int) -> dict[str, Any]:
        """As `[index]`, with the picture's bytes as they are stored."""
        record, number = self.pair(index)
        return self._one(self.source.encoded(record), record, number)

    def captions(self, index: int) -> list[str]:
        """The one caption, without the picture."""
        record, number = self.pair(index)
        return [self.source.captions(record)[number]]

    def pair(self, index: int) -> tuple[int, int]:
        """(the record's index in the source, the caption's number) of a pair."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        record = int(np.searchsorted(self._first, index, side="right")) - 1
        return record, int(index - self._first[record])

    def _one(self, fields: dict[str, Any], record: int, number: int) -> dict[str, Any]:
        captions = fields["captions"]
        key = f"{fields['key']}#{number}"
        count = int(self._first[record + 1] - self._first[record])
        if len(captions) != count:
            raise BadRecord(key, f"it has {len(captions)} captions, and had {count} when counted")
        return {**fields, "key": key, "captions": [captions[number]]}


class Source(EachCaption):
    """The pairs of `data`, a source section."""

    def __init__(self, data: Mapping[str, Any]):
        super().__init__(instantiate(data, "Source", where="the data of each_caption"))
