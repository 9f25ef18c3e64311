"""Zero-shot classification: class names in sentences, and the nearest one to each picture.

Radford et al., CLIP (arXiv 2103.00020, section 3.1.4), with its prompt ensembles: `data.prompts`.

Letters: N pictures, C classes, T templates, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from capjax.data import prompts
from capjax.data.classes import class_names
from capjax.errors import UserError
from capjax.evals.encoder import Encoder
from capjax.evals.labelled import LabelledData
from capjax.metrics.classification import accuracy_measures, class_embeddings, true_class_ranks
from capjax.metrics.measure import Measure


class Evaluator:
    """`run(params)`: zero_shot_top_1, zero_shot_top_5, zero_shot_mean_per_class.

    data: a source section whose records have a class name (see `labelled`).
    classes: the names, a file of them, or "" for those that occur in the data.
    templates: sentences with {}, a file of them, or "" for the general ones of
    `capjax.data.prompts`.
    label, batch_size, resize, limit, max_bad_fraction: see `labelled.LabelledData`.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tokenizer,
        data: Mapping[str, Any],
        classes: Sequence[str] | str = "",
        templates: Sequence[str] | str = "",
        batch_size: int = 64,
        **options,
    ):
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.data = LabelledData(
            data, image_size=model.image_size, batch_size=batch_size, **options
        )
        self.classes = class_names(classes) if classes else ()
        self.templates = prompts.resolve(templates)

    def run(self, params) -> dict[str, float]:
        """Accuracies as shares in [0, 1]."""
        return {name: measure.value for name, measure in self.measures(params).items()}

    def measures(self, params) -> dict[str, Measure]:
        """The same with their values per picture."""
        encoder = Encoder(self.model, params, self.tokenizer, self.batch_size)
        found = self.data.embed(encoder)
        classes = self.classes or class_names("", found.labels)
        if len(classes) < 2:
            raise UserError(f"there is only the class {classes[0]!r} to choose: give at least two")
        labels = found.numbers(classes)
        scores = found.features @ self.classifier(encoder, classes).T
        ks = tuple(k for k in (1, 5) if k < len(classes))
        measures = accuracy_measures(true_class_ranks(scores, labels), labels, ks)
        return {f"zero_shot_{name}": measure for name, measure in measures.items()}

    def classifier(self, encoder: Encoder, classes: Sequence[str]) -> np.ndarray:
        """One unit vector a class: float64 [C, E]."""
        texts = [prompts.fill(template, name) for name in classes for template in self.templates]
        embedded = encoder.texts(texts)
        return class_embeddings(embedded.reshape(len(classes), len(self.templates), -1))
