"""BLEU, ROUGE-L, CIDEr and `evaluate`: values worked out by hand, awkward captions, mistakes."""

import json
import math
import pathlib

import numpy as np
import pytest

from capjax.errors import UserError
from capjax.metrics import References, evaluate
from capjax.metrics.bleu import bleu_from_statistics, bleu_statistics
from capjax.metrics.rouge import longest_common_subsequence

# What pycocoevalcap gives on these images together; how it was made is written in the file.
ORIGINAL = json.loads((pathlib.Path(__file__).parent / "scores_original.json").read_text())

REFERENCES = {
    "a": ["a dog runs on the grass", "the dog is running"],
    "b": ["a cat sleeps", "a cat on a sofa"],
}


def test_awkward_candidates_score_as_in_the_original():
    images = ORIGINAL["images"]
    scores = evaluate(
        {image["id"]: image["candidate"] for image in images},
        {image["id"]: image["references"] for image in images},
    )
    assert scores.metrics == pytest.approx(ORIGINAL["corpus"], abs=1e-12)
    for image in images:
        got = scores.per_image[image["id"]]
        assert got == pytest.approx(image["expected"], abs=1e-12), image["id"]


def test_bleu_by_hand():
    references = References.from_captions(REFERENCES)
    statistics = bleu_statistics(references.align({"a": "the the dog", "b": "a cat on the sofa"}))
    # Image a: lengths 6 and 4, the nearer to 3 is 4; one "the" is clipped away; "the dog" matches.
    assert statistics[0].tolist() == [3, 4, 2, 1, 0, 0, 3, 2, 1, 0]
    assert statistics[1].tolist() == [5, 5, 4, 2, 1, 0, 5, 4, 3, 2]
    corpus = bleu_from_statistics(statistics.sum(axis=0))
    brevity = math.exp(1 - 9 / 8)
    assert corpus[0] == pytest.approx(brevity * 6 / 8)
    assert corpus[1] == pytest.approx(brevity * math.sqrt(6 / 8 * 3 / 6))
    assert corpus[2] == pytest.approx(brevity * (6 / 8 * 3 / 6 * 1 / 4) ** (1 / 3))


def test_the_shorter_of_two_equally_near_reference_lengths_counts():
    references = References.from_captions({"a": ["one two three four five", "one two three"]})
    assert bleu_statistics(references.align({"a": "one two three four"}))[0, 1] == 3


def test_rouge_l_by_hand():
    scores = evaluate({"a": "the dog runs", "b": "a cat"}, REFERENCES, ("rouge_l",))
    # a: best precision 2/3 (either reference), best recall 2/4, from the second.
    precision, recall, beta2 = 2 / 3, 2 / 4, 1.2**2
    expected = (1 + beta2) * precision * recall / (recall + beta2 * precision)
    assert scores.per_image["a"]["rouge_l"] == pytest.approx(expected)
    assert longest_common_subsequence("abcbdab", "bdcaba") == 4


def test_cider_by_hand():
    # Two images: "dog" is in the references of one, so idf = ln 2; "a" is in both, so 0.
    references = {"1": ["a dog"], "2": ["a cat"]}
    scores = evaluate({"1": "a dog", "2": "a bird"}, references, ("cider", "cider_plain"))
    # Image 1 is equal up to bigrams and has no longer n-grams: cosines 1, 1, 0, 0.
    assert scores.per_image["1"]["cider"] == pytest.approx(10 * 2 / 4)
    assert scores.per_image["2"]["cider"] == 0
    longer = evaluate({"1": "a dog dog dog", "2": "a bird"}, references, ("cider", "cider_plain"))
    # Unigrams: weights (0, 3 ln2) and (0, ln2): cosine 1; clipped, ln2 * ln2 / (3 ln2 * ln2) = 1/3.
    # Bigrams: "a dog" ln2, "dog dog" 2 ln2 (in no reference: as rare as in one): 1 / sqrt 5.
    plain = 10 * (1 + 1 / math.sqrt(5)) / 4
    assert longer.per_image["1"]["cider_plain"] == pytest.approx(plain)
    # Three bigrams against one: penalty exp(-2^2 / (2 * 6^2)).
    clipped = 10 * (1 / 3 + 1 / math.sqrt(5)) / 4 * math.exp(-4 / 72)
    assert longer.per_image["1"]["cider"] == pytest.approx(clipped)


def test_references_are_counted_once_for_many_candidate_sets(monkeypatch):
    references = References.from_captions(REFERENCES)
    first = evaluate({"a": "a dog runs", "b": "a cat"}, references)
    counted = references.postings
    monkeypatch.setattr(
        "capjax.metrics.references._postings", lambda *_: pytest.fail("counted a second time")
    )
    again = evaluate({"b": ["a cat"], "a": ["a dog runs"]}, references)
    assert (again.metrics, again.per_image) == (first.metrics, first.per_image)
    assert references.postings is counted
    assert evaluate({"a": "grass", "b": "sofa"}, references).metrics != first.metrics


def test_a_single_image_has_no_document_frequencies():
    assert evaluate({"x": "a dog"}, {"x": ["a dog"]}, ("cider",)).metrics["cider"] == 0


def test_a_very_long_candidate():
    scores = evaluate({"a": "a dog runs " * 5000, "b": "a cat"}, REFERENCES)
    assert all(np.isfinite(list(scores.per_image["a"].values())))


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ({"a": "x"}, REFERENCES, r"1 references have no candidate \('b'\)"),
        (dict.fromkeys("abcdef", "x"), REFERENCES, r"4 candidates .*\('c', 'd', 'e', \.\.\.\)"),
        ({"a": "x", "b": 3}, REFERENCES, "candidate of image 'b' is a int"),
        ({"a": "x", "b": ["x", "y"]}, REFERENCES, "image 'b' has 2 candidates"),
        ({"a": "x", "b": []}, REFERENCES, "image 'b' has 0 candidates"),
        ({"a": "x"}, {"a": []}, "image 'a' has no reference"),
        ({"a": "x"}, {"a": "a dog"}, "references of image 'a' are a str"),
        ({"a": "x"}, {"a": ["a dog", None]}, "reference of image 'a' is a NoneType"),
        ({}, {}, "no reference captions"),
    ],
)
def test_mistakes_are_named(candidates, references, message):
    with pytest.raises(UserError, match=message):
        evaluate(candidates, references)


def test_an_unknown_metric_is_named_with_those_that_exist():
    with pytest.raises(
        UserError, match="'blue': there are bleu, rouge_l, cider, cider_plain, meteor"
    ):
        evaluate({"a": "x", "b": "y"}, REFERENCES, ("blue",))
