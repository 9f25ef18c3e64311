"""Some of the records of an open source, by their places: what `without` and `fold` are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from capjax.errors import UserError


class Chosen:
    """The records at the places `_kept`, int [n], of `source`; a subclass sets them.

    It offers `encoded`, the record as it is stored, only where the source does. `chooser` is the
    subclass's name in the UserError for a mixture, whose order is its own.
    """

    _kept: np.ndarray

    def __init__(self, source: Any, chooser: str):
        if hasattr(source, "names"):
            raise UserError(
                f"{chooser} cannot take records out of a mixture, which has an order of its own: "
                "wrap a source of the mixture instead"
            )
        self.source = source
        if hasattr(source, "encoded"):
            self.encoded = self._encoded

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[int(self._kept[index])]

    def captions(self, index: int) -> list[str]:
        """As the source's."""
        return self.source.captions(int(self._kept[index]))

    def _encoded(self, index: int) -> dict[str, Any]:
        return self.source.encoded(int(self._kept[index]))
