"""Bootstrap over images: percentile intervals, and the paired difference of two systems.

Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004; Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. Images are drawn with replacement;
both systems of a pair are scored on the same draws.

A metric is either one value an image, averaged (ROUGE-L, CIDEr, CLIPScore), or a function of the
drawn images, which BLEU needs because its counts are added up before they are divided:

    statistics = bleu_statistics(references.align(candidates))
    interval(lambda drawn: bleu_from_statistics(statistics[drawn].sum(axis=0))[3], len(statistics))

CIDEr's document frequencies stay those of the whole set: they belong to the references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from capjax.errors import UserError

Statistic = Callable[[np.ndarray], float]  # int64 [N] drawn images -> the value of that corpus


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
    return interval(_mean(values), len(values), **options)


def interval(
    statistic: Statistic,
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
    draws = [float(statistic(drawn)) for drawn in _draws(images, resamples, seed)]
    low, high = np.quantile(draws, _tails(confidence))
    return Interval(float(statistic(np.arange(images))), float(low), float(high))


def mean_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, **options
) -> Difference:
    """The paired difference of the means of two systems' values per image, both [N].

    Raises:
      UserError: as many values of one as of the other missing, or as `difference`.
    """
    first, second = _values(first), _values(second)
    if first.shape != second.shape:
        raise UserError(
            f"{len(first)} values of the first system and {len(second)} of the second:"
            " score both on the same images"
        )
    return difference(_mean(first), _mean(second), len(first), **options)


def difference(
    first: Statistic,
    second: Statistic,
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
    draws = np.array(
        [float(first(drawn)) - float(second(drawn)) for drawn in _draws(images, resamples, seed)]
    )
    everything = np.arange(images)
    low, high = np.quantile(draws, _tails(confidence))
    # One more of each, as if the images as they are had been drawn too: p is never 0.
    one_side = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0)) + 1
    return Difference(
        value=float(first(everything)) - float(second(everything)),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2 * one_side / (resamples + 1)),
    )


def _mean(values: np.ndarray) -> Statistic:
    return lambda drawn: values[drawn].mean()


def _values(values: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise UserError(f"values have shape {values.shape}: give one value an image")
    return values


def _draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(images, size=images)


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _require(images: int, confidence: float, resamples: int) -> None:
    if images < 1:
        raise UserError("there are no images to draw from: give at least one value")
    if resamples < 1:
        raise UserError(f"{resamples} bootstrap resamples: give at least 1, better 1000")
    if not 0 < confidence < 1:
        raise UserError(f"confidence {confidence} is not between 0 and 1: give 0.95, say")
