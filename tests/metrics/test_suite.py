"""Metrics by name over one or several candidates an image."""

import numpy as np
import pytest

from capjax.errors import UserError
from capjax.metrics import References, evaluate
from capjax.metrics.object_words import ObjectVocabulary
from capjax.metrics.parsers.toy import Parser
from capjax.metrics.suite import ALL, Suite

REFERENCES = {"a": ["a dog chases a cat", "the dog runs"], "b": ["a man sits", "a man sleeps ."]}
ONE = {"a": ["a dog runs"], "b": ["the man sits"]}
THREE = {
    "a": ["a dog runs", "a dog chases a cat", "cats"],
    "b": ["a man", "a bird sits", "a man sleeps"],
}
VOCABULARY = ObjectVocabulary({"dog": [], "cat": ["kitten"], "man": [], "bird": []})


@pytest.fixture(scope="module")
def references():
    return References.from_captions(REFERENCES)


def suite(*names, **kwargs):
    truth = [{"dog", "cat"}, {"man"}]
    return Suite(names, parser=Parser(), objects=(VOCABULARY, truth), **kwargs)


def test_one_candidate_scores_as_by_evaluate(references):
    names = ("bleu", "rouge_l", "cider", "cider_plain")
    scores = suite(*names).score(ONE, references)
    expected = evaluate(ONE, references, names)
    assert scores.metrics == expected.metrics
    assert scores.per_image == expected.per_image


def test_every_metric_but_those_of_several_has_a_value_for_one_candidate(references):
    heard = []
    names = [name for name in ALL if name not in ("self_bleu", "meteor")]
    scores = suite(*names, training=[["a", "dog", "runs"]]).score(ONE, references, heard.append)
    assert heard == names
    assert {"tuple_f[toy]", "spider[toy]", "chair_i", "vocabulary", "novelty", "words"} <= set(
        scores.metrics
    )
    assert scores.metrics["novelty"] == 0.5
    assert scores.metrics["chair_s"] == 0
    half = (scores.metrics["cider"] + scores.metrics["tuple_f[toy]"]) / 2
    assert scores.metrics["spider[toy]"] == pytest.approx(half)
    assert not {"spice", "spider", "spider_max"} & set(scores.metrics)


@pytest.mark.parametrize(("pick", "of"), [("max", np.max), ("min", np.min), ("mean", np.mean)])
def test_the_value_of_several_candidates_is_picked_image_by_image(references, pick, of):
    scores = suite("cider", "chair", pick=pick).score(THREE, references)
    assert set(scores.metrics) == {
        f"{name}_{pick}" for name in ("cider", "chair_i", "chair_s", "object_recall")
    }
    columns = [evaluate({i: THREE[i][k] for i in THREE}, references) for k in range(3)]
    for image_id in REFERENCES:
        expected = of([column.per_image[image_id]["cider"] for column in columns])
        assert scores.per_image[image_id][f"cider_{pick}"] == pytest.approx(expected)
    assert scores.metrics[f"cider_{pick}"] == pytest.approx(
        np.mean([values[f"cider_{pick}"] for values in scores.per_image.values()])
    )


def test_spider_max_has_its_parts_at_the_best_candidate(references):
    scores = suite("spider", pick="max").score(THREE, references)
    for image_id in REFERENCES:
        of_each = [
            suite("cider", "tuple_f", "spider")
            .score({i: [THREE[i][k]] for i in THREE}, references)
            .per_image[image_id]
            for k in range(3)
        ]
        best = max(of_each, key=lambda values: values["spider[toy]"])
        got = scores.per_image[image_id]
        assert got["spider_max[toy]"] == pytest.approx(best["spider[toy]"])
        assert got["cider_d_max[toy]"] == pytest.approx(best["cider"])
        assert got["toy_max"] == pytest.approx(best["tuple_f[toy]"])


def test_metrics_of_sets_see_all_candidates(references):
    scores = suite("diversity", "self_bleu", "lengths").score(THREE, references)
    assert scores.metrics["vocabulary"] == 10
    assert scores.metrics["words"] == pytest.approx((3 + 5 + 1 + 2 + 3 + 3) / 6)
    assert 0 < scores.metrics["self_bleu_1"] < 1


@pytest.mark.parametrize(
    ("make", "candidates", "message"),
    [
        (lambda: Suite(["blue"]), ONE, "unknown metric 'blue': there are bleu, .*meteor"),
        (lambda: Suite(["spider"]), ONE, "spider needs a scene-graph parser"),
        (lambda: Suite(["chair"]), ONE, "chair needs an object vocabulary"),
        (lambda: suite("cider"), THREE, "images have 3 candidates: say with pick"),
        (lambda: suite("self_bleu"), ONE, "caption"),
        (lambda: suite("cider"), {"a": ["x"], "c": ["y"]}, "need the same image ids"),
    ],
)
def test_mistakes_are_named(references, make, candidates, message):
    with pytest.raises(UserError, match=message):
        make().score(candidates, references)
