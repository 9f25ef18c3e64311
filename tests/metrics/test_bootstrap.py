"""Bootstrap intervals: known coverage, seeds, pairs, and statistics that are no means."""

import numpy as np
import pytest

from capjax.errors import UserError
from capjax.metrics import evaluate
from capjax.metrics.bootstrap import (
    interval,
    mean_difference,
    mean_interval,
    measure_difference,
    measure_interval,
)
from capjax.metrics.measure import Measure


def test_the_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=2000)
    got = mean_interval(values, resamples=2000)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert got.value == pytest.approx(values.mean())
    assert got.low == pytest.approx(values.mean() - half, abs=0.01)
    assert got.high == pytest.approx(values.mean() + half, abs=0.01)
    narrow = mean_interval(values, resamples=2000, confidence=0.5)
    assert got.low < narrow.low < got.value < narrow.high < got.high


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        got = mean_interval(
            generator.exponential(size=80), confidence=0.9, resamples=200, seed=seed
        )
        hits += got.low <= 1.0 <= got.high
    assert 0.8 < hits / 200 < 0.97


def test_the_seed_decides():
    values = np.arange(50.0)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_pairs_see_a_small_difference_that_separate_intervals_hide():
    generator = np.random.default_rng(2)
    second = generator.normal(0.0, 10.0, size=400)
    first = second + generator.normal(0.1, 0.3, size=400)
    got = mean_difference(first, second)
    assert got.value == pytest.approx(np.mean(first - second))
    assert 0 < got.low < got.value < got.high
    assert got.p_value < 0.01
    assert mean_interval(first).low < mean_interval(second).high
    turned = mean_difference(second, first)
    assert (turned.low, turned.high) == pytest.approx((-got.high, -got.low))


def test_no_difference_is_not_significant():
    values = np.random.default_rng(3).normal(size=100)
    same = mean_difference(values, values)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    noise = mean_difference(values, np.random.default_rng(4).normal(values.mean(), 1, size=100))
    assert noise.p_value > 0.05


def test_corpus_bleu_is_resampled_by_its_counts():
    references = {i: [f"a dog runs on the grass {i}", "the dog is running"] for i in range(20)}
    good = evaluate(dict.fromkeys(range(20), "a dog runs on the grass"), references)
    bad = evaluate({i: "a dog runs on a" if i % 2 else "a cat" for i in range(20)}, references)
    measure = bad.measures["bleu_4"]
    got = measure_interval(measure, resamples=100)
    assert got.value == pytest.approx(bad.metrics["bleu_4"])
    assert got.low < got.value < got.high
    # The mean of the values per image is another number, and its interval would be wrong.
    assert abs(measure.per_image.mean() - got.value) > 0.01
    assert measure_difference(good.measures["bleu_4"], measure, resamples=100).low > 0


def test_a_count_of_distinct_things_is_centred():
    images = 200
    distinct = Measure(
        np.ones(images), lambda weights: float(np.count_nonzero(weights)), distinct=True
    )
    got = measure_interval(distinct)
    assert got.low < got.value == images < got.high
    # Uncentred, a drawing holds about 63% of the images and the interval misses the value.
    assert interval(distinct.corpus, images).high < 0.75 * images
    half = Measure(
        np.ones(images),
        lambda weights: float(np.count_nonzero(weights[: images // 2])),
        distinct=True,
    )
    assert measure_difference(distinct, half).low > 90


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "no images"),
        (lambda: mean_interval([1.0], confidence=95), "confidence 95"),
        (lambda: mean_interval([1.0], resamples=0), "0 bootstrap resamples"),
        (lambda: mean_interval([[1.0]]), "one value an image"),
        (lambda: mean_difference([1.0, 2.0], [1.0]), "2 values .* 1 of the second"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
