"""Retrieval between pictures and their captions in a model's own space.

Letters: N pictures, M = captions of all pictures, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from capjax.config import instantiate
from capjax.data.loader import eval_batches
from capjax.data.skips import SkipBudget
from capjax.errors import UserError
from capjax.evals.encoder import Encoder
from capjax.metrics.measure import Measure
from capjax.metrics.retrieval import retrieval_measures


class Evaluator:
    """`run(params)`: recall at 1, 5 and 10, median and mean rank, in both directions.

    Their names are image_to_text_recall_at_1, text_to_image_median_rank and the like; recall_sum is
    the sum of the six recalls.

    Every caption of a picture is a query of its own; a picture finds its text when the best of
    its captions is among the first k of all M.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tokenizer,
        data: Mapping[str, Any],
        batch_size: int = 64,
        resize: str = "squash",
        max_bad_fraction: float = 0.0,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.batch_size, self.resize = batch_size, resize
        self.max_bad_fraction = max_bad_fraction
        self.source = instantiate(data, "Source", where="the evaluator's data")

    def run(self, params) -> dict[str, float]:
        """Recalls as shares in [0, 1], ranks from 1."""
        return {name: measure.value for name, measure in self.measures(params).items()}

    def measures(self, params) -> dict[str, Measure]:
        """The same with their values per picture."""
        encoder = Encoder(self.model, params, self.tokenizer, self.batch_size)
        skips = SkipBudget(len(self.source), self.max_bad_fraction)
        images, captions, owner = [], [], []
        for batch in eval_batches(
            self.source, self.batch_size, self.model.image_size, self.resize, skips
        ):
            embedded = encoder.images(batch["image"])
            for row in np.flatnonzero(batch["mask"]):
                owner += [len(images)] * len(batch["captions"][row])
                captions += batch["captions"][row]
                images.append(embedded[row])
        if not captions:
            raise UserError("the evaluation data has no captions to retrieve")
        return retrieval_measures(
            np.stack(images), range(len(images)), encoder.texts(captions), owner
        )
