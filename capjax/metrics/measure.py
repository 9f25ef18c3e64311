"""A metric of one system: its value for each image, and for any drawing of the images.

A bootstrap draws images with replacement and asks for the corpus value of the drawing. Most metrics
are means of their values per image, some divide sums (BLEU, METEOR), some count distinct things
(vocabulary). All of them are functions of how often each image is drawn, and so one bootstrap
serves them all.

Legend: N images, K numbers an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measure:
    """Values of one metric.

    Attributes:
      per_image: float64 [N].
      corpus: weights float64 [N] -> the value of the corpus in which image i stands weights[i]
        times.
      distinct: the value counts distinct things, to which repeated images add nothing; intervals
        then leave images out instead of drawing them twice (`jackknife`).
    """

    per_image: np.ndarray
    corpus: Callable[[np.ndarray], float]
    distinct: bool = False

    @property
    def value(self) -> float:
        """Of the corpus as it is."""
        return float(self.corpus(np.ones(len(self.per_image))))


def mean_of(per_image: np.ndarray) -> Measure:
    """A metric whose corpus value is the mean of its values per image [N]."""
    per_image = np.asarray(per_image, np.float64)
    return Measure(per_image, lambda weights: float(weights @ per_image / weights.sum()))


def of_sums(statistics: np.ndarray, combine: Callable[[np.ndarray], np.ndarray]) -> Measure:
    """A metric made from sums over images.

    Args:
      statistics: [N, K], to be added up over images.
      combine: such sums [..., K] -> values [...].
    """
    statistics = np.asarray(statistics, np.float64)
    return Measure(combine(statistics), lambda weights: float(combine(weights @ statistics)))
