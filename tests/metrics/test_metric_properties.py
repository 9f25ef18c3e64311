"""What must hold for any captions: order is irrelevant, equality is best, values keep in range."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.metrics import evaluate

ALL = ("bleu", "rouge_l", "cider", "cider_plain")
CAPTION = st.lists(
    st.sampled_from(["a", "dog", "cat", "runs", "the", "red", "1/2", ".", "isn't", "é", "😀"]),
    max_size=9,
).map(" ".join)
CORPUS = st.dictionaries(
    st.integers(0, 99),
    st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=4)),
    min_size=1,
    max_size=6,
)


def score(corpus):
    candidates = {image_id: candidate for image_id, (candidate, _) in corpus.items()}
    return evaluate(candidates, {i: references for i, (_, references) in corpus.items()}, ALL)


@settings(deadline=None)
@given(CORPUS, st.randoms(use_true_random=False))
def test_the_order_of_images_and_references_changes_nothing(corpus, chance: random.Random):
    images = list(corpus.items())
    chance.shuffle(images)
    shuffled = {
        image_id: (candidate, chance.sample(references, len(references)))
        for image_id, (candidate, references) in images
    }
    before, after = score(corpus), score(shuffled)
    assert after.metrics == pytest.approx(before.metrics, abs=1e-12)
    for image_id, values in before.per_image.items():
        assert after.per_image[image_id] == pytest.approx(values, abs=1e-12)


@settings(deadline=None)
@given(CORPUS)
def test_values_keep_in_range(corpus):
    scores = score(corpus)
    assert list(scores.per_image) == list(corpus)
    for values in (scores.metrics, *scores.per_image.values()):
        for name, value in values.items():
            assert -1e-12 <= value <= (10 if name.startswith("cider") else 1) + 1e-6, name


@settings(deadline=None)
@given(CORPUS, st.text("abcdefg", min_size=4, max_size=9))
def test_a_candidate_equal_to_its_references_has_the_maximum(corpus, letters):
    # Words of its own, so that every order has n-grams which tell this image from the others.
    caption = " ".join(f"{letter}{place}" for place, letter in enumerate(letters))
    corpus = corpus | {100: (caption, [caption, caption])}
    got = score(corpus).per_image[100]
    assert [got[f"bleu_{n}"] for n in range(1, 5)] == pytest.approx([1.0] * 4, abs=1e-6)
    assert got["rouge_l"] == pytest.approx(1.0)
    expected = 10.0 if len(corpus) > 1 else 0.0
    assert got["cider"] == pytest.approx(expected)
    assert got["cider_plain"] == pytest.approx(expected)


@settings(deadline=None)
@given(CORPUS)
def test_a_score_of_one_image_does_not_depend_on_the_other_candidates(corpus):
    changed = dict(corpus)
    first, *others = corpus
    for image_id in others:
        changed[image_id] = ("something else", corpus[image_id][1])
    assert score(changed).per_image[first] == pytest.approx(score(corpus).per_image[first])
