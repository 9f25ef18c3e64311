"""A source some of whose pictures have the captions of other pictures: noise of a known amount.

    config.data.train = {
        "name": "capjax.data.mismatched",
        "data": {"name": "capjax.data.manifest", "path": ...},
        "share": 0.5,
    }

With a share of 1 nothing is left to learn but how captions sound: the ablation of every claim that
pairs teach something. ALIGN's trade of scale against noise (arXiv 2102.05918, section 6.2) is
tested with a share in between. Which records are hit is a function of the seed and their index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from capjax.config import instantiate
from capjax.errors import UserError


class Source:
    """The records of `data`; a random `share` of them have all captions of another record.

    Raises:
      UserError: a share outside [0, 1], or fewer than two records to swap captions between.
    """

    def __init__(self, data: Mapping[str, Any], share: float, seed: int = 0):
        if not 0 <= share <= 1:
            raise UserError(f"share={share} of mismatched captions must lie between 0 and 1")
        self.source = instantiate(data, "Source", where="the data whose captions are mismatched")
        size = len(self.source)
        if share and size < 2:
            raise UserError(f"{size} records cannot swap captions: give at least two")
        rng = np.random.default_rng(seed)
        # Exactly the share, and never a record's own captions.
        hit = rng.permutation(size)[: round(share * size)]
        self._captions_of = np.arange(size)
        self._captions_of[hit] = (hit + rng.integers(1, max(size, 2), len(hit))) % max(size, 1)

    def __len__(self) -> int:
        return len(self.source)

    def captions(self, index: int) -> list[str]:
        """Those that the record has here, without its picture."""
        return self.source.captions(int(self._captions_of[index]))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.source[index], "captions": self.captions(index)}
