"""Bootstrap intervals: known coverage, seeds, pairs, and statistics that are no means."""

import dataclasses

import numpy as np
import pytest

from capjax.errors import UserError
from capjax.metrics import evaluate
from capjax.metrics.bootstrap import (
    mean_difference,
    mean_interval,
    measure_difference,
    measure_interval,
)
from capjax.metrics.diversity import caption_sets, vocabulary
from capjax.metrics.jackknife import standard_error
from capjax.metrics.measure import Measure, mean_of


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


def test_a_count_of_distinct_things_is_not_bootstrapped():
    images = 200
    distinct = Measure(
        np.ones(images), lambda weights: float(np.count_nonzero(weights)), distinct=True
    )
    got = measure_interval(distinct)
    assert got.low <= got.value == images <= got.high
    # A drawing holds about 63% of the images, and the bootstrap's interval misses the value.
    drawn = dataclasses.replace(distinct, distinct=False)
    assert measure_interval(drawn).high < 0.75 * images
    half = Measure(
        np.ones(images),
        lambda weights: float(np.count_nonzero(weights[: images // 2])),
        distinct=True,
    )
    assert measure_difference(distinct, half).low > 80


def test_the_jackknife_gives_the_standard_error_of_a_mean():
    values = np.random.default_rng(5).normal(size=150)
    error = standard_error(mean_of(values).corpus, 150, seed=0)  # one image a group
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(150))
    as_counts = Measure(values, mean_of(values).corpus, distinct=True)
    got, expected = measure_interval(as_counts), mean_interval(values, resamples=4000)
    assert got == pytest.approx(expected, abs=0.03)


def test_the_interval_of_a_vocabulary_holds_what_other_samples_have():
    # Words as frequent as 1 / rank; an image has 8 of them.
    generator = np.random.default_rng(6)
    chance = 1 / np.arange(1, 3001)
    samples = generator.choice(3000, size=(120, 300, 8), p=chance / chance.sum())
    sizes = [len(np.unique(sample)) for sample in samples]
    hits = []
    for sample in samples[:20]:
        found = vocabulary(caption_sets([[list(map(str, words))] for words in sample]))
        got = measure_interval(found)
        assert got.value == len(np.unique(sample))
        hits.append(got.low <= np.mean(sizes) <= got.high)
        assert got.high - got.low < 6 * np.std(sizes)
    assert np.mean(hits) >= 0.85


def test_vocabularies_are_compared_on_the_same_images():
    generator = np.random.default_rng(7)
    words = generator.integers(5000, size=(400, 8))
    few = vocabulary(caption_sets([[list(map(str, w % 300))] for w in words]))
    many = vocabulary(caption_sets([[list(map(str, w))] for w in words]))
    assert measure_difference(many, few).low > 1000
    assert measure_difference(many, few).p_value < 1e-6
    assert measure_difference(many, many) == (0, 0, 0, 1)


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
