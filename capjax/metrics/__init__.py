"""Caption metrics as coco-caption computes them, in NumPy: the same numbers without Java.

    scores = evaluate({"1": "a dog runs"}, {"1": ["a dog running", "the dog runs ."], ...})
    scores.metrics["cider"], scores.per_image["1"]["bleu_4"]

Values are in the natural scale of coco-caption: a `cider` of 1.26 is the 126 of papers, a `bleu_4`
of 0.361 their 36.1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from capjax.errors import UserError
from capjax.metrics import bleu, cider, rouge
from capjax.metrics.document_frequency import DocumentFrequencies
from capjax.metrics.measure import Measure, mean_of
from capjax.metrics.meteor import meteor
from capjax.metrics.ptb import tokenize
from capjax.metrics.references import Candidates, References

__all__ = [
    "METRICS",
    "Candidates",
    "DocumentFrequencies",
    "Measure",
    "References",
    "Scores",
    "evaluate",
    "tokenize",
]


@dataclass(frozen=True)
class Scores:
    """What an evaluation gives: each metric by its name.

    ids: the N images. measures: per image, [N] in their order, and for any drawing of the images.
    """

    ids: tuple[Hashable, ...]
    measures: dict[str, Measure]

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """The values of the corpus."""
        return {name: measure.value for name, measure in self.measures.items()}

    @functools.cached_property
    def per_image(self) -> dict[Hashable, dict[str, float]]:
        """{image id: its values}."""
        columns = [measure.per_image.tolist() for measure in self.measures.values()]
        return {
            image_id: dict(zip(self.measures, row, strict=True))
            for image_id, *row in zip(self.ids, *columns, strict=True)
        }


Metric = Callable[[Candidates], dict[str, Measure]]  # name of a value -> the value


def _mean(name: str, metric: Callable[[Candidates], np.ndarray]) -> Metric:
    """A metric whose corpus value is the mean of its values per image."""
    return lambda candidates: {name: mean_of(metric(candidates))}


METRICS: dict[str, Metric] = {
    "bleu": bleu.bleu,
    "rouge_l": _mean("rouge_l", rouge.rouge_l),
    "cider": _mean("cider", cider.cider),
    "cider_plain": _mean("cider_plain", cider.cider_plain),
    "meteor": lambda candidates: {"meteor": meteor(candidates)},
}


def evaluate(
    candidates: Mapping[Hashable, str | Sequence[str]],
    references: Mapping[Hashable, Sequence[str]] | References,
    metrics: Sequence[str | Metric] = ("bleu", "rouge_l", "cider"),
) -> Scores:
    """Scores one candidate caption an image against its reference captions.

    Args:
      candidates: {image id: a caption}, or coco-caption's {image id: [a caption]}.
      references: {image id: captions}, or `References` made once for several candidate sets.
      metrics: which of `METRICS` (`bleu` gives bleu_1 to bleu_4), or functions like them.

    Raises:
      UserError: an unknown metric; ids that do not match; an image without references; a caption
        that is not a string.
    """
    for metric in metrics:
        if isinstance(metric, str) and metric not in METRICS:
            raise UserError(f"unknown metric {metric!r}: there are {', '.join(METRICS)}")
    if not isinstance(references, References):
        references = References.from_captions(references)
    aligned = references.align(candidates)
    measures: dict[str, Measure] = {}
    for metric in metrics:
        measures |= (METRICS[metric] if isinstance(metric, str) else metric)(aligned)
    return Scores(references.ids, measures)
