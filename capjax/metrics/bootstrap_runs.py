"""Bootstrap intervals of a method that was trained several times: runs and images are both drawn.

A value of the method is the mean over runs (seeds) of the value of the corpus. In each resample
runs are drawn with replacement and, once for all of them, images; so an interval holds what
another seed and what other images would have changed. Two methods are compared on the same draws:
run k of one belongs to run k of the other (the same training at two settings, say).

With few runs the part that is due to seeds comes out too small: of R runs the bootstrap sees
(R - 1) / R of their variance, of three two thirds (Davison and Hinkley, "Bootstrap Methods and
Their Application", 1997, section 3.8, on resampling within two levels).

Legend: R runs, N images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.errors import UserError
from capjax.metrics.bootstrap import Difference, Interval, Options, draw, percentiles
from capjax.metrics.measure import Measure


def runs_interval(runs: Sequence[Measure], **options) -> Interval:
    """The interval of the mean over R runs of one metric; `options` are those of `Options`.

    Raises:
      UserError: no runs, no images, runs with different numbers of images, a metric that counts
        distinct things, or as `Options`.
    """
    return _examine([_checked(runs)], Options(**options))[0]


def runs_difference(first: Sequence[Measure], second: Sequence[Measure], **options) -> Difference:
    """The paired difference, first minus second, of the means over R runs of one metric.

    Raises:
      UserError: as `runs_interval`, or different numbers of runs or of images.
    """
    if len(first) != len(second):
        raise UserError(
            f"{len(first)} runs of the first method and {len(second)} of the second: compare the "
            "same seeds"
        )
    _checked([*first, *second])
    found, p_value = _examine([first, second], Options(**options))
    return Difference(*found, p_value)


def _checked(runs: Sequence[Measure]) -> Sequence[Measure]:
    sizes = {len(run.per_image) for run in runs}
    if not runs or sizes == {0}:
        raise UserError("there are no runs, or no images, to draw from: give at least one of each")
    if len(sizes) > 1:
        raise UserError(f"the runs have {sorted(sizes)} images: score all on the same images")
    if any(run.distinct for run in runs):
        raise UserError(
            "what counts distinct things has no bootstrap, since images that are drawn twice add "
            "nothing to it: report its value for every run"
        )
    return runs


def _examine(methods: Sequence[Sequence[Measure]], options: Options) -> tuple[Interval, float]:
    """Of the first method's mean, or of the first's minus the second's."""
    runs, images = len(methods[0]), len(methods[0][0].per_image)

    def value(times: np.ndarray, weights: np.ndarray) -> float:
        means = [
            sum(
                time * float(run.corpus(weights))
                for time, run in zip(times, method, strict=True)
                if time
            )
            / runs
            for method in methods
        ]
        return means[0] - sum(means[1:])

    generator = np.random.default_rng(options.seed)
    drawn = [
        value(draw(runs, generator), draw(images, generator)) for _ in range(options.resamples)
    ]
    return percentiles(value(np.ones(runs), np.ones(images)), np.array(drawn), options)
