"""Equality with what coco-caption and the CIDEr of its author give on real captions."""

import gzip
import json
import pathlib

import pytest

from capjax.metrics import References, evaluate, tokenize

NAMES = {
    "Bleu_1": "bleu_1",
    "Bleu_2": "bleu_2",
    "Bleu_3": "bleu_3",
    "Bleu_4": "bleu_4",
    "ROUGE_L": "rouge_l",
    "CIDEr": "cider",
}
COMPUTED = ["aac_example_1.json.gz", "flickr8k_dev_loo0.json.gz", "coco_fakecap_63a.json"]
DOCUMENTED = ["clipscore_good.json", "nlg_eval_example.json", "aac_metrics_readme.json"]


def load(shared: pathlib.Path, name: str) -> dict:
    data = (shared / "data" / "metrics_fixtures" / name).read_bytes()
    return json.loads(gzip.decompress(data) if name.endswith(".gz") else data)


@pytest.mark.parametrize("name", COMPUTED + DOCUMENTED)
def test_corpus_values(shared, name):
    fixture = load(shared, name)
    tokenizer = str.split if fixture["tokenizer"].startswith("none") else tokenize
    references = References.from_captions(fixture["references"], tokenizer)
    scores = evaluate(fixture["candidates"], references)
    # Documented values are compared as exactly as they were printed.
    tolerance = 1e-6 if name in COMPUTED else fixture["tolerance"]
    expected = {NAMES[key]: value for key, value in fixture["expected"].items() if key in NAMES}
    assert len(expected) >= 2
    for key, value in expected.items():
        assert scores.metrics[key] == pytest.approx(value, abs=tolerance), key


@pytest.mark.parametrize("name", COMPUTED)
def test_tokens(shared, name):
    fixture = load(shared, name)
    for image_id, captions in fixture["references"].items():
        expected = fixture["tokenized_references"][image_id]
        assert [" ".join(tokenize(caption)) for caption in captions] == expected
        candidate = " ".join(tokenize(fixture["candidates"][image_id]))
        assert [candidate] == fixture["tokenized_candidates"][image_id]


@pytest.mark.parametrize("name", COMPUTED)
def test_values_per_image(shared, name):
    fixture = load(shared, name)
    scores = evaluate(fixture["candidates"], fixture["references"])
    assert len(fixture["expected_per_image"]) == len(scores.per_image)
    for image_id, expected in fixture["expected_per_image"].items():
        for key, name_here in NAMES.items():
            got = scores.per_image[image_id][name_here]
            assert got == pytest.approx(expected[key], abs=1e-6), (image_id, key)


@pytest.mark.parametrize("candidates", ["candsB", "candsC"])
def test_both_forms_of_cider_with_48_references(shared, candidates):
    fixture = load(shared, "abstract48S_a.json.gz")
    items = fixture["sets"][candidates]["candidates"]
    # An image with two candidates counts twice among the documents, as in the original.
    references = {i: fixture["references"][item["image_id"]] for i, item in enumerate(items)}
    scores = evaluate(
        {i: item["caption"] for i, item in enumerate(items)}, references, ("cider", "cider_plain")
    )
    corpus = fixture["sets"][candidates]["corpus"]
    assert scores.metrics["cider"] == pytest.approx(corpus["CIDErD"], abs=1e-6)
    assert scores.metrics["cider_plain"] == pytest.approx(corpus["CIDEr"], abs=1e-6)
    for i, item in enumerate(items):
        assert scores.per_image[i]["cider"] == pytest.approx(item["CIDErD"], abs=1e-6)
        assert scores.per_image[i]["cider_plain"] == pytest.approx(item["CIDEr"], abs=1e-6)
