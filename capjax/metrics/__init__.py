"""Caption metrics as coco-caption computes them, in NumPy: the same numbers without Java.

    scores = evaluate({"1": "a dog runs"}, {"1": ["a dog running", "the dog runs ."], ...})
    scores.metrics["cider"], scores.per_image["1"]["bleu_4"]

Values are in the natural scale of coco-caption: a `cider` of 1.26 is the 126 of papers, a `bleu_4`
of 0.361 their 36.1.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from capjax.errors import UserError
from capjax.metrics import bleu, cider, rouge
from capjax.metrics.ptb import tokenize
from capjax.metrics.references import Candidates, References

__all__ = ["METRICS", "Candidates", "References", "Scores", "evaluate", "tokenize"]


@dataclass(frozen=True)
class Scores:
    """What an evaluation gives: values of the corpus, and the same names for each image."""

    metrics: dict[str, float]
    per_image: dict[Hashable, dict[str, float]]


# name -> {name of a value: (of the corpus, of each image [N])}
Metric = Callable[[Candidates], dict[str, tuple[float, np.ndarray]]]


def _bleu(candidates: Candidates) -> dict[str, tuple[float, np.ndarray]]:
    corpus, per_image = bleu.bleu(candidates)
    return {f"bleu_{n + 1}": (corpus[n], per_image[:, n]) for n in range(len(corpus))}


def _mean(name: str, metric: Callable[[Candidates], np.ndarray]) -> Metric:
    """A metric whose corpus value is the mean of its values per image."""

    def compute(candidates: Candidates) -> dict[str, tuple[float, np.ndarray]]:
        values = metric(candidates)
        return {name: (values.mean(), values)}

    return compute


METRICS: dict[str, Metric] = {
    "bleu": _bleu,
    "rouge_l": _mean("rouge_l", rouge.rouge_l),
    "cider": _mean("cider", cider.cider),
    "cider_plain": _mean("cider_plain", cider.cider_plain),
}


def evaluate(
    candidates: Mapping[Hashable, str | Sequence[str]],
    references: Mapping[Hashable, Sequence[str]] | References,
    metrics: Sequence[str] = ("bleu", "rouge_l", "cider"),
) -> Scores:
    """Scores one candidate caption an image against its reference captions.

    Args:
      candidates: {image id: a caption}, or coco-caption's {image id: [a caption]}.
      references: {image id: captions}, or `References` made once for several candidate sets.
      metrics: which of `METRICS`; `bleu` gives bleu_1 to bleu_4.

    Raises:
      UserError: an unknown metric; ids that do not match; an image without references; a caption
        that is not a string.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise UserError(f"unknown metric {unknown[0]!r}: there are {', '.join(METRICS)}")
    if not isinstance(references, References):
        references = References.from_captions(references)
    aligned = references.align(candidates)
    values: dict[str, tuple[float, np.ndarray]] = {}
    for name in metrics:
        values |= METRICS[name](aligned)
    columns = [per_image.tolist() for _, per_image in values.values()]
    per_image = {
        image_id: {name: column[i] for name, column in zip(values, columns, strict=True)}
        for i, image_id in enumerate(references.ids)
    }
    return Scores({name: float(corpus) for name, (corpus, _) in values.items()}, per_image)
