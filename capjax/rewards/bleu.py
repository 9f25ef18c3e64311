"""BLEU-n of each caption against its picture's references, as `capjax.metrics` counts it: 0 to 1.

A caption by itself is a small corpus: where no n-gram of the largest order matches, the value is
next to 0. Letters: b pictures, K captions of each. Raises `UserError` without references.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.errors import UserError
from capjax.metrics.bleu import bleu_from_statistics, bleu_statistics
from capjax.metrics.ngrams import MAX_ORDER
from capjax.rewards.tokenised import Tokenised


class Reward:
    """n: the largest order of n-grams."""

    def __init__(self, *, n: int = 4):
        if not 1 <= n <= MAX_ORDER:
            raise UserError(f"n={n} of the reward BLEU must be 1 to {MAX_ORDER}")
        self._n, self._texts = n, Tokenised()

    def score_texts(
        self,
        keys: Sequence[str],
        references: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
    ) -> np.ndarray:
        """float64 [b,K]."""
        found = self._texts.candidates(keys, references, candidates)
        values = [bleu_from_statistics(bleu_statistics(each)) for each in found]
        return np.stack([value[:, self._n - 1] for value in values], 1)
