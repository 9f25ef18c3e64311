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
from capjax.metrics.retrieval import caption_image_ranks, recall_from_ranks

RECALLS = (1, 5, 10)


class Evaluator:
    """`run(params)`: image_to_text_recall_at_k and text_to_image_recall_at_k, k in 1, 5, 10.

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
        """Recalls as shares in [0, 1]."""
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
        to_image, to_text = caption_image_ranks(
            np.stack(images), range(len(images)), encoder.texts(captions), owner
        )
        return {
            f"{direction}_recall_at_{k}": recall
            for direction, found in (("image_to_text", to_text), ("text_to_image", to_image))
            for k, recall in recall_from_ranks(found, RECALLS).items()
        }
