"""Intervals over runs and images: what each level adds, pairing, coverage, misuse."""

import numpy as np
import pytest

from capjax.errors import UserError
from capjax.metrics.bootstrap import mean_difference, mean_interval
from capjax.metrics.bootstrap_runs import runs_difference, runs_interval
from capjax.metrics.measure import Measure, mean_of, of_sums


def measures(values):
    return [mean_of(run) for run in values]


def test_one_run_has_the_interval_of_its_images():
    """As wide as the one-level bootstrap's; the draws are others."""
    values = np.random.default_rng(0).normal(size=400)
    ours, theirs = runs_interval(measures([values])), mean_interval(values)
    assert ours.value == pytest.approx(theirs.value)
    assert ours.high - ours.low == pytest.approx(theirs.high - theirs.low, rel=0.1)


def test_both_levels_count():
    """The variance of the mean is that of runs and that of images, by hand."""
    generator = np.random.default_rng(1)
    seeds = generator.normal(size=(8, 1))
    values = seeds + generator.normal(size=(1, 300))
    interval = runs_interval(measures(values), resamples=4000)
    variance = values.mean(1).var() / 8 + values.mean(0).var() / 300
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.06)
    same = runs_interval(measures(np.repeat(values[:1], 8, 0)), resamples=4000)
    images = values[0].var() / 300
    assert same.high - same.low == pytest.approx(2 * 1.96 * images**0.5, rel=0.06)


def test_differences_are_paired():
    """What is common to both methods, of seeds and of images, is not in their difference."""
    generator = np.random.default_rng(2)
    common = 5 * generator.normal(size=(3, 1)) + 5 * generator.normal(size=(1, 200))
    gain = 0.2 + 0.1 * generator.normal(size=(3, 200))
    difference = runs_difference(measures(common + gain), measures(common))
    assert 0.1 < difference.low < difference.value < difference.high < 0.3
    assert difference.p_value < 0.01
    assert difference.value == pytest.approx(gain.mean())
    one = runs_difference(measures(common[:1] + gain[:1]), measures(common[:1]))
    assert one.value == pytest.approx(mean_difference(common[0] + gain[0], common[0]).value)


def test_ratios_of_sums_are_made_anew_in_each_draw():
    """Runs whose images all have the same ratio have no spread, however their sums differ."""
    weights = np.random.default_rng(3).integers(1, 9, size=(2, 50))
    runs = [of_sums(np.stack([3 * w, w], 1), lambda s: s[..., 0] / s[..., 1]) for w in weights]
    assert runs_interval(runs) == pytest.approx((3, 3, 3))


def test_it_covers_what_it_should():
    """With many seeds 90% intervals hold the truth about 9 times in 10; of images alone, rarely."""
    generator = np.random.default_rng(4)
    held = {"both": 0, "images": 0}
    for _ in range(100):
        values = generator.normal(size=(12, 1)) + generator.normal(size=(1, 100))
        values = values + generator.normal(size=(12, 100))
        options = dict(confidence=0.9, resamples=200)
        both = runs_interval(measures(values), **options)
        images = mean_interval(values.mean(0), **options)
        held["both"] += both.low <= 0 <= both.high
        held["images"] += images.low <= 0 <= images.high
    assert 80 <= held["both"] <= 97
    assert held["images"] < 70


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no runs"),
        (measures([[]]), "no images"),
        (measures([[1.0], [1.0, 2.0]]), r"\[1, 2\] images"),
        ([Measure(np.ones(2), lambda weights: 1.0, distinct=True)], "distinct"),
    ],
)
def test_runs_that_cannot_be_drawn_from(runs, message):
    with pytest.raises(UserError, match=message):
        runs_interval(runs)


def test_methods_need_the_same_runs():
    with pytest.raises(UserError, match="2 runs of the first method and 1 of the second"):
        runs_difference(measures([[1.0], [2.0]]), measures([[1.0]]))
