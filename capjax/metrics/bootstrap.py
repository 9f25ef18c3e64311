"""Bootstrap over images: percentile intervals, and the paired difference of two systems.

Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004; Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. Images are drawn with replacement;
both systems of a pair are scored on the same draws.

A metric is a function of how often each image is drawn (`measure`), so that one bootstrap serves
means over images and ratios of sums (BLEU); counts of distinct things (vocabulary) go to the
`jackknife`. CIDEr's document frequencies stay those of the whole set, as its references do.

    scores = [evaluate(candidates, references) for candidates in (ours, theirs)]
    measure_difference(scores[0].measures["bleu_4"], scores[1].measures["bleu_4"])

Legend: N images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from capjax.errors import UserError
from capjax.metrics import jackknife
from capjax.metrics.measure import Measure, mean_of


class Interval(NamedTuple):
    value: float  # on the images as they are
    low: float
    high: float


class Difference(NamedTuple):
    value: float  # first minus second, on the images as they are
    low: float
    high: float
    p_value: float  # two-sided, of the difference being zero


@dataclass(frozen=True)
class Options:
    """How intervals are made. resamples: drawings of a bootstrap; seed: of what is drawn.

    Raises:
      UserError: fewer than 1 resample, or a confidence outside (0, 1).
    """

    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self):
        if self.resamples < 1:
            raise UserError(f"{self.resamples} bootstrap resamples: give at least 1, better 1000")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence {self.confidence} is not between 0 and 1: give 0.95, say")


def mean_interval(values: Sequence[float] | np.ndarray, **options) -> Interval:
    """The interval of the mean of values per image [N]; `options` are those of `Options`."""
    return measure_interval(mean_of(_values(values)), **options)


def measure_interval(measure: Measure, **options) -> Interval:
    """The percentile interval of a metric of one system; `options` are those of `Options`.

    Raises:
      UserError: no images, or as `Options`.
    """
    images = len(measure.per_image)
    return _examine(measure.corpus, images, measure.distinct, Options(**options))[0]


def mean_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, **options
) -> Difference:
    """The paired difference, first minus second, of the means of values per image, both [N].

    Raises:
      UserError: as `measure_difference`.
    """
    return measure_difference(mean_of(_values(first)), mean_of(_values(second)), **options)


def measure_difference(first: Measure, second: Measure, **options) -> Difference:
    """The paired difference of one metric of two systems on the same images, in the same order.

    Raises:
      UserError: different numbers of images, no images, or as `Options`.
    """
    images, others = len(first.per_image), len(second.per_image)
    if images != others:
        raise UserError(
            f"{images} values of the first system and {others} of the second:"
            " score both on the same images"
        )

    def corpus(weights: np.ndarray) -> float:
        return float(first.corpus(weights)) - float(second.corpus(weights))

    found, p_value = _examine(corpus, images, first.distinct, Options(**options))
    return Difference(*found, p_value)


def _examine(
    corpus: Callable[[np.ndarray], float], images: int, distinct: bool, options: Options
) -> tuple[Interval, float]:
    """The interval of a corpus value, and the two-sided p-value of its being zero."""
    if images < 1:
        raise UserError("there are no images to draw from: give at least one value")
    value = float(corpus(np.ones(images)))
    if distinct:
        error = jackknife.standard_error(corpus, images, options.seed)
        bounds = jackknife.bounds(value, error, options.confidence)
        return Interval(value, *bounds), jackknife.p_value(value, error)
    generator = np.random.default_rng(options.seed)
    drawn = (float(corpus(draw(images, generator))) for _ in range(options.resamples))
    return percentiles(value, np.fromiter(drawn, np.float64), options)


def percentiles(value: float, drawn: np.ndarray, options: Options) -> tuple[Interval, float]:
    """The interval of a value from what it was in each resample, and the two-sided p-value of its
    being zero."""
    tail = (1 - options.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    # One more of each, as if the images as they are had been drawn too: p is never 0.
    one_side = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0)) + 1
    p_value = min(1.0, 2 * one_side / (options.resamples + 1))
    return Interval(value, float(low), float(high)), p_value


def draw(count: int, generator: np.random.Generator) -> np.ndarray:
    """How often each of `count` things is drawn, float64 [count]; they add up to `count`."""
    drawn = generator.integers(count, size=count)
    return np.bincount(drawn, minlength=count).astype(np.float64)


def _values(values: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise UserError(f"values have shape {values.shape}: give one value an image")
    return values
