"""Records kept in memory, so that small sets are decoded or drawn once and not every epoch."""

from __future__ import annotations

from typing import Any

from capjax.data.loader import NUMBERS

KEPT = ("key", "image", "captions", *NUMBERS)


class Cached:
    """A source in front of `source`: each record is made once and its picture and text are kept.

    Memory: H * W * 3 bytes a picture. A record that cannot be used fails anew each time.
    """

    def __init__(self, source: Any):
        self.source = source
        for name in ("order", "names"):  # what some sources have
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))
        self._records: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """{key, image, captions} of the record and its numbers; what else it holds is not kept."""
        record = self._records.get(index)
        if record is None:
            # Two threads may both make it: the same record, so the second write is harmless.
            full = self.source[index]
            record = {name: full[name] for name in KEPT if name in full}
            self._records[index] = record
        return record

    def captions(self, index: int) -> list[str]:
        """As the source's."""
        return self.source.captions(index)
