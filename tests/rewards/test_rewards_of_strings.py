"""Rewards that need strings are the metrics of `capjax.metrics`, caption by caption."""

import numpy as np
import pytest
import toy

from capjax.errors import UserError
from capjax.metrics import References, bleu, cider
from capjax.metrics.document_frequency import DocumentFrequencies
from capjax.rewards import bleu as bleu_reward
from capjax.rewards import cider as cider_reward
from capjax.rewards.function import Reward as Function

REFERENCES = [["a red sofa .", "the red couch"], ["a dog runs fast", "one dog", "a brown dog runs"]]
CANDIDATES = [["a red sofa", "", "a dog"], ["a brown dog runs fast", "dog dog dog dog", "a sofa"]]
KEYS = ["one", "two"]


def of_metric(function, corpus=None):
    references = References.from_captions(dict(enumerate(REFERENCES)), corpus=corpus)
    each = [dict(enumerate(group)) for group in zip(*CANDIDATES, strict=True)]
    return np.stack([function(references.align(own)) for own in each], 1)


def test_cider_is_cider_d_with_the_frequencies_of_a_corpus(tmp_path):
    source = toy.Source(size=12)
    texts = {i: source.captions(i) for i in range(len(source))} | {"x": REFERENCES[1]}
    corpus = DocumentFrequencies.of(References.from_captions(texts))
    corpus.save(tmp_path / "train.npz")
    reward = cider_reward.Reward(document_frequencies=str(tmp_path / "train.npz"))
    for _ in range(2):  # the second time, references are known
        found = reward.score_texts(KEYS, REFERENCES, CANDIDATES)
        np.testing.assert_array_equal(found, of_metric(cider.cider, corpus))
    assert found[0, 0] > 1 > found[0, 2]


def test_cider_counts_a_corpus_itself():
    reward = cider_reward.Reward(corpus={"name": "toy", "size": 12}, num_records=8)
    source = toy.Source(size=8)
    texts = {i: source.captions(i) for i in range(8)}
    corpus = DocumentFrequencies.of(References.from_captions(texts))
    found = reward.score_texts(KEYS, REFERENCES, CANDIDATES)
    np.testing.assert_array_equal(found, of_metric(cider.cider, corpus))


@pytest.mark.parametrize("n", [1, 4])
def test_bleu_is_that_of_each_caption(n):
    found = bleu_reward.Reward(n=n).score_texts(KEYS, REFERENCES, CANDIDATES)
    expected = of_metric(lambda each: bleu.bleu(each)[f"bleu_{n}"].per_image)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_picture_may_be_twice_in_a_batch():
    found = bleu_reward.Reward(n=1).score_texts(["x", "x"], [["a dog"]] * 2, [["a dog"], ["a"]])
    np.testing.assert_allclose(found[:, 0], [1, np.exp(-1)], rtol=1e-6)


def test_without_references_there_is_no_such_reward():
    with pytest.raises(UserError, match="the picture 'two' has no caption"):
        bleu_reward.Reward().score_texts(KEYS, [["a"], []], CANDIDATES)
    with pytest.raises(UserError, match="n=5 of the reward BLEU"):
        bleu_reward.Reward(n=5)


def words(candidates, references, keys, per=1):
    return [len(text.split()) / per for text in candidates]


def one_too_few(candidates, references, keys):
    return [0.0] * (len(candidates) - 1)


def test_any_function():
    reward = Function(function=f"{__name__}:words", options={"per": 2})
    found = reward.score_texts(KEYS, REFERENCES, CANDIDATES)
    np.testing.assert_array_equal(found, [[1.5, 0, 1], [2.5, 2, 1]])
    with pytest.raises(UserError, match=r"gave \(5,\) numbers for 6 captions"):
        Function(function=f"{__name__}:one_too_few").score_texts(KEYS, REFERENCES, CANDIDATES)
