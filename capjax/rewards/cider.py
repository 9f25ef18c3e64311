"""CIDEr-D of each caption against its picture's references, as `capjax.metrics` counts it: 0 to 10.

Rennie et al. 2017 (self-critical training, arXiv 1612.00563) reward captions with it. The weights
of n-grams must be those of the whole training set, counted before and kept in a file:

    corpus = DocumentFrequencies.of(References.from_captions(training_captions))
    corpus.save("train.npz")

or counted when training begins, of the captions of a data section (`corpus`). A picture's own batch
would make poor ones. References are tokenised once a picture.

Letters: b pictures, K captions of each.
Raises `UserError` where there are no document frequencies, or no references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capjax.config import instantiate
from capjax.errors import UserError
from capjax.metrics.cider import cider
from capjax.metrics.document_frequency import DocumentFrequencies
from capjax.metrics.references import References
from capjax.rewards.tokenised import Tokenised


class Reward:
    """document_frequencies: a file; or corpus: a data section ({"name": import path, ...}), of
    which the first `num_records` are counted."""

    def __init__(
        self,
        *,
        document_frequencies: str = "",
        corpus: Mapping[str, Any] | None = None,
        num_records: int = 20_000,
    ):
        if bool(document_frequencies) == bool(corpus):
            raise UserError(
                "the reward CIDEr-D needs document frequencies: give either document_frequencies, "
                "a file, or corpus, a data section whose captions are counted"
            )
        self._texts = Tokenised()
        if document_frequencies:
            self._frequencies = DocumentFrequencies.load(document_frequencies)
        else:
            source = instantiate(corpus, "Source", where="the corpus of the reward CIDEr-D")
            count = min(len(source), num_records)
            captions = {index: list(source.captions(index)) for index in range(count)}
            self._frequencies = DocumentFrequencies.of(References.from_captions(captions))

    def score_texts(
        self,
        keys: Sequence[str],
        references: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
    ) -> np.ndarray:
        """float64 [b,K]."""
        found = self._texts.candidates(keys, references, candidates, self._frequencies)
        return np.stack([cider(each) for each in found], 1)
