"""METEOR against the original: frozen values, the shared fixtures, and what must always hold."""

import gzip
import json
import pathlib
import random

import meteor_data
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.metrics.meteor import meteor, scoring, sentence_meteor
from capjax.metrics.ptb import tokenize
from capjax.metrics.references import References

ORIGINAL = json.loads(pathlib.Path(__file__).with_name("meteor_original.json").read_text())

pytestmark = meteor_data.needed


def blanks(caption: str) -> list[str]:
    """Tokens of a caption whose tokens are joined by blanks."""
    return caption.split(" ") if caption else []


def measure(candidates, references, tokenizer=blanks):
    return meteor(References.from_captions(references, tokenizer).align(candidates))


def test_frozen_values():
    cases = ORIGINAL["cases"]
    result = measure(
        {number: case["candidate"] for number, case in enumerate(cases)},
        {number: case["references"] for number, case in enumerate(cases)},
    )
    for case, score in zip(cases, result.per_image, strict=True):
        assert score == pytest.approx(case["score"], abs=1e-12), case
    assert result.value == pytest.approx(ORIGINAL["corpus"], abs=1e-12)


@pytest.mark.parametrize("number", range(0, len(ORIGINAL["cases"]), 7))
def test_a_caption_alone_has_the_same_score(number):
    case = ORIGINAL["cases"][number]
    references = [blanks(reference) for reference in case["references"]]
    got = sentence_meteor(blanks(case["candidate"]), references)
    assert got == pytest.approx(case["score"], abs=1e-12)


@pytest.mark.parametrize(
    "name", ["aac_example_1.json.gz", "flickr8k_dev_loo0.json.gz", "coco_fakecap_63a.json"]
)
def test_values_of_the_original_on_real_captions(shared, name):
    fixture = load(shared, name)
    result = measure(fixture["candidates"], fixture["references"], tokenize)
    assert result.value == pytest.approx(fixture["expected"]["METEOR"], abs=1e-9)
    expected = {i: values["METEOR"] for i, values in fixture["expected_per_image"].items()}
    got = dict(zip(fixture["references"], result.per_image, strict=True))
    assert got == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["clipscore_good.json", "nlg_eval_example.json"])
def test_documented_values(shared, name):
    fixture = load(shared, name)
    tokenizer = str.split if fixture["tokenizer"].startswith("none") else tokenize
    result = measure(fixture["candidates"], fixture["references"], tokenizer)
    assert result.value == pytest.approx(fixture["expected"]["METEOR"], abs=fixture["tolerance"])


def load(shared: pathlib.Path, name: str) -> dict:
    data = (shared / "data" / "metrics_fixtures" / name).read_bytes()
    return json.loads(gzip.decompress(data) if name.endswith(".gz") else data)


WORD = st.sampled_from(
    ["a", "the", "dog", "dogs", "bike", "bicycle", "running", "ran", "in", "front", "of", "."]
)
CAPTION = st.lists(WORD, max_size=9).map(" ".join)
CORPUS = st.dictionaries(
    st.integers(0, 99),
    st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=4)),
    min_size=1,
    max_size=6,
)


def measure_corpus(corpus):
    return measure(
        {image_id: candidate for image_id, (candidate, _) in corpus.items()},
        {image_id: references for image_id, (_, references) in corpus.items()},
    )


@settings(deadline=None, max_examples=40)
@given(CORPUS, st.randoms(use_true_random=False))
def test_the_order_of_images_and_references_changes_no_score(corpus, chance: random.Random):
    images = list(corpus.items())
    chance.shuffle(images)
    before, after = measure_corpus(corpus), measure_corpus(dict(images))
    scores = dict(zip(corpus, before.per_image, strict=True))
    assert dict(zip(dict(images), after.per_image, strict=True)) == scores
    assert after.value == before.value
    shuffled = {i: (c, chance.sample(r, len(r))) for i, (c, r) in corpus.items()}
    assert measure_corpus(shuffled).per_image.tolist() == before.per_image.tolist()


@settings(deadline=None, max_examples=40)
@given(CORPUS)
def test_a_score_depends_on_its_image_alone_and_keeps_in_range(corpus):
    together = measure_corpus(corpus)
    assert 0 <= together.value <= 1
    for (candidate, references), score in zip(corpus.values(), together.per_image, strict=True):
        assert 0 <= score <= 1
        assert sentence_meteor(blanks(candidate), [blanks(r) for r in references]) == score


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text("abcdefghijkl", min_size=3, max_size=5), min_size=1, unique=True))
def test_a_candidate_equal_to_its_reference_has_the_maximum(words):
    assert sentence_meteor(words, [["zzz"], words]) == pytest.approx(1.0)


@settings(deadline=None, max_examples=20)
@given(CORPUS, st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_an_image_drawn_twice_counts_twice(corpus, weights):
    weights = np.array(weights[: len(corpus)]) + (np.arange(len(corpus)) == 0)
    drawn = {
        (image_id, copy): captions
        for (image_id, captions), weight in zip(corpus.items(), weights, strict=True)
        for copy in range(weight)
    }
    expected = measure_corpus(drawn).value
    assert measure_corpus(corpus).corpus(weights) == pytest.approx(expected, abs=1e-12)


def test_the_corpus_value_is_that_of_the_sums():
    result = measure({1: "a dog", 2: "the cat sat"}, {1: ["a dog"], 2: ["a cat"]})
    assert result.value != pytest.approx(result.per_image.mean(), abs=1e-3)
    assert result.per_image[0] == 1.0


def test_a_score_by_hand():
    # "the" and "sat" match; two chunks. Content words weigh 0.75, function words 0.25.
    counts = np.zeros(scoring.STATISTICS)
    counts[:4] = 3, 3, 1, 1
    counts[4:8] = 1, 1, 1, 1
    counts[-1] = 2
    precision = recall = (0.75 + 0.25) / (2 * 0.75 + 0.25)
    mean = 1 / (0.15 / precision + 0.85 / recall)
    expected = mean * (1 - 0.6 * (2 / 2) ** 0.2)
    assert scoring.score(counts) == pytest.approx(expected)
    assert sentence_meteor(["the", "qqq", "sat"], [["the", "www", "sat"]]) == pytest.approx(
        expected
    )
