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

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from capjax.errors import UserError
from capjax.metrics import jackknife
from capjax.metrics.measure import Measure, mean_of

Corpus = Callable[[np.ndarray], float]  # float64 [N], how often each image is drawn -> the value


class Interval(NamedTuple):
    value: float  # on the images as they are
    low: float
    high: float


class Difference(NamedTuple):
    value: float  # first minus second, on the images as they are
    low: float
    high: float
    p_value: float  # two-sided, of the difference being zero


def mean_interval(values: Sequence[float] | np.ndarray, **options) -> Interval:
    """The interval of the mean of values per image [N]; options as `interval`."""
    values = _values(values)
    return interval(mean_of(values).corpus, len(values), **options)


def measure_interval(measure: Measure, **options) -> Interval:
    """The interval of a metric of one system; options as `interval`."""
    images = len(measure.per_image)
    if measure.distinct:
        return _jackknife_interval(measure.corpus, images, **options)
    return interval(measure.corpus, images, **options)


def interval(
    corpus: Corpus,
    images: int,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The percentile interval of a corpus-level statistic over `images` images.

    Raises:
      UserError: no images, fewer than 1 resample, or a confidence outside (0, 1).
    """
    _require(images, confidence, resamples)
    value = float(corpus(np.ones(images)))
    draws = np.array([float(corpus(weights)) for weights in _draws(images, resamples, seed)])
    return Interval(value, *_quantiles(draws, confidence))


def mean_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, **options
) -> Difference:
    """The paired difference of the means of two systems' values per image, both [N].

    Raises:
      UserError: as many values of one as of the other missing, or as `difference`.
    """
    return measure_difference(mean_of(_values(first)), mean_of(_values(second)), **options)


def measure_difference(first: Measure, second: Measure, **options) -> Difference:
    """The paired difference of one metric of two systems on the same images, in the same order.

    Raises:
      UserError: different numbers of images, or as `difference`.
    """
    images, others = len(first.per_image), len(second.per_image)
    if images != others:
        raise UserError(
            f"{images} values of the first system and {others} of the second:"
            " score both on the same images"
        )
    if first.distinct:
        return _jackknife_difference(first.corpus, second.corpus, images, **options)
    return difference(first.corpus, second.corpus, images, **options)


def difference(
    first: Corpus,
    second: Corpus,
    images: int,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """The paired difference, first minus second, of a corpus-level statistic of two systems.

    Raises:
      UserError: as `interval`.
    """
    _require(images, confidence, resamples)
    everything = np.ones(images)
    value = float(first(everything)) - float(second(everything))
    draws = np.array(
        [
            float(first(weights)) - float(second(weights))
            for weights in _draws(images, resamples, seed)
        ]
    )
    low, high = _quantiles(draws, confidence)
    # One more of each, as if the images as they are had been drawn too: p is never 0.
    one_side = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0)) + 1
    return Difference(value, low, high, p_value=min(1.0, 2 * one_side / (resamples + 1)))


def _jackknife_interval(
    corpus: Corpus, images: int, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    _require(images, confidence, resamples)
    value = float(corpus(np.ones(images)))
    error = jackknife.standard_error(corpus, images, seed)
    return Interval(value, *jackknife.bounds(value, error, confidence))


def _jackknife_difference(
    first: Corpus,
    second: Corpus,
    images: int,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    def corpus(weights: np.ndarray) -> float:
        return float(first(weights)) - float(second(weights))

    found = _jackknife_interval(
        corpus, images, confidence=confidence, resamples=resamples, seed=seed
    )
    error = jackknife.standard_error(corpus, images, seed)
    return Difference(*found, jackknife.p_value(found.value, error))


def _values(values: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise UserError(f"values have shape {values.shape}: give one value an image")
    return values


def _draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = generator.integers(images, size=images)
        yield np.bincount(drawn, minlength=images).astype(np.float64)


def _quantiles(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _require(images: int, confidence: float, resamples: int) -> None:
    if images < 1:
        raise UserError("there are no images to draw from: give at least one value")
    if resamples < 1:
        raise UserError(f"{resamples} bootstrap resamples: give at least 1, better 1000")
    if not 0 < confidence < 1:
        raise UserError(f"confidence {confidence} is not between 0 and 1: give 0.95, say")
