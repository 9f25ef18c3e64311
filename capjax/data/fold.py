"""One of several disjoint parts of a source: a captioner's pictures, and those of its judge.

    config.data.train = {
        "name": "capjax.data.fold",
        "data": {"name": "capjax.data.manifest", "path": ...},
        "fold": 0,
        "folds": 2,
    }

Record i of `data` belongs to fold i mod folds, so that a file sorted by time or by subject gives
folds that are alike. Disjoint records are disjoint pictures only where no picture comes twice:
`capjax.curate.dedup` finds those that do.

Raises `UserError` for a fold that there is not, for one without records, and for a mixture: wrap
its sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from capjax.config import instantiate
from capjax.data.chosen import Chosen
from capjax.errors import UserError


class Source(Chosen):
    """The records fold, fold + folds, fold + 2 folds, .. of `data`, a source section."""

    def __init__(self, data: Mapping[str, Any], fold: int, folds: int):
        if not 0 <= fold < folds:
            raise UserError(f"fold={fold} of folds={folds}: number the folds from 0 on")
        super().__init__(instantiate(data, "Source", where="the data of fold"), "fold")
        self._kept = np.arange(fold, len(self.source), folds)
        if not len(self._kept):
            raise UserError(f"fold={fold} is empty: the data have {len(self.source):,} records")
