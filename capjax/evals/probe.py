"""What frozen image features tell: a linear probe and nearest neighbours on labelled pictures.

The linear probe is that of CLIP (`capjax.metrics.linear_probe`), on what the image tower gives
before the projection; nearest neighbours are those of ALIGN (`capjax.metrics.neighbours`), on the
embeddings.

Letters: N pictures, D features, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from capjax.data.classes import class_names
from capjax.errors import UserError
from capjax.evals.encoder import Encoder
from capjax.evals.labelled import LabelledData
from capjax.metrics.classification import accuracy_measures, true_class_ranks
from capjax.metrics.linear_probe import Probe, fit, search
from capjax.metrics.measure import Measure
from capjax.metrics.neighbours import neighbour_scores

METHODS = ("linear", "knn")


class Evaluator:
    """`run(params)`: linear_top_1, linear_mean_per_class, knn_top_1 and the like.

    train, test: source sections whose records have a class name (see `labelled`).
    methods: some of `linear` and `knn`. k: neighbours.
    penalty: of the linear probe; 0 searches it on `validation_share` of the training pictures, and
    then fits on all of them.
    classes, label, batch_size, resize, limit, max_bad_fraction: as in `zero_shot`.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tokenizer,
        train: Mapping[str, Any],
        test: Mapping[str, Any],
        methods: Sequence[str] = METHODS,
        k: int = 1,
        penalty: float = 0.0,
        validation_share: float = 0.2,
        classes: Sequence[str] | str = "",
        batch_size: int = 64,
        seed: int = 0,
        **options,
    ):
        unknown = [method for method in methods if method not in METHODS]
        if unknown or not methods:
            raise UserError(
                f"unknown probe {unknown[0]!r}: there are {', '.join(METHODS)}"
                if unknown
                else f"no probe is named: choose from {', '.join(METHODS)}"
            )
        if not 0 < validation_share < 1:
            raise UserError(f"validation_share is {validation_share}: give a share such as 0.2")
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        options |= {"image_size": model.image_size, "batch_size": batch_size}
        self.train, self.test = LabelledData(train, **options), LabelledData(test, **options)
        self.methods, self.k, self.penalty = tuple(methods), k, penalty
        self.validation_share, self.seed = validation_share, seed
        self.classes = class_names(classes) if classes else ()

    def run(self, params) -> dict[str, float]:
        """Accuracies as shares in [0, 1], and the penalty that was found."""
        return {name: measure.value for name, measure in self.measures(params).items()}

    def measures(self, params) -> dict[str, Measure]:
        """The same with their values per test picture."""
        encoder = Encoder(self.model, params, self.tokenizer, self.batch_size)
        found: dict[str, Measure] = {}
        for method in self.methods:
            before_projection = method == "linear"
            train = self.train.embed(encoder, before_projection)
            test = self.test.embed(encoder, before_projection)
            classes = self.classes or class_names("", train.labels)
            known, wanted = train.numbers(classes), test.numbers(classes)
            if method == "linear":
                probe = self._fit(train.features, known, len(classes))
                scores = probe.scores(test.features)
            else:
                scores = neighbour_scores(
                    test.features, train.features, known, len(classes), self.k
                )
            measures = accuracy_measures(true_class_ranks(scores, wanted), wanted, ks=(1,))
            found |= {f"{method}_{name}": measure for name, measure in measures.items()}
        return found

    def _fit(self, features: np.ndarray, labels: np.ndarray, classes: int) -> Probe:
        penalty = self.penalty
        if not penalty:
            order = np.random.default_rng(self.seed).permutation(len(labels))
            held_out = max(1, round(self.validation_share * len(labels)))
            validation, rest = order[:held_out], order[held_out:]

            def score(candidate: float) -> float:
                probe = fit(features[rest], labels[rest], classes, candidate)
                ranks = true_class_ranks(probe.scores(features[validation]), labels[validation])
                return float(np.mean(ranks == 1))

            penalty, _ = search(score)
        probe = fit(features, labels, classes, penalty)
        if not probe.converged:
            logging.warning("the linear probe did not converge; its accuracy is a lower bound")
        return probe
