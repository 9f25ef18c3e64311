"""Accuracies and the zero-shot classifier's class vectors: values by hand, mistakes."""

import numpy as np
import pytest

from capjax.errors import UserError
from capjax.metrics.bootstrap import measure_interval
from capjax.metrics.classification import accuracy_measures, class_embeddings, true_class_ranks


def test_prompts_weigh_the_same_however_long_their_vectors_are():
    emb = np.array([[[1.0, 0], [0, 1]], [[2.0, 0], [0.6, 0.8]]])
    got = class_embeddings(emb)
    assert got[0] == pytest.approx([np.sqrt(0.5)] * 2)
    assert got[1] == pytest.approx([0.894427, 0.447214], abs=1e-6)  # not the plain mean (.8, .4)


def test_ranks_and_accuracies_by_hand():
    scores = np.array([[3.0, 2, 1], [3, 2, 1], [1, 1, 0], [0, 1, 2]])
    labels = np.array([0, 1, 0, 2])
    ranks = true_class_ranks(scores, labels)
    assert ranks.tolist() == [1, 2, 2, 1]  # the tie of the third picture is no hit
    measures = accuracy_measures(ranks, labels, ks=(1, 2))
    assert measures["top_1"].value == 0.5
    assert measures["top_2"].value == 1.0
    assert measures["mean_per_class"].value == pytest.approx((1 / 2 + 0 + 1) / 3)


def test_equal_scores_for_all_are_never_right():
    ranks = true_class_ranks(np.ones((6, 3)), np.arange(6) % 3)
    assert accuracy_measures(ranks, np.arange(6) % 3)["top_1"].value == 0


def test_the_mean_over_classes_can_be_bootstrapped():
    labels = np.repeat([0, 1], [90, 10])
    ranks = np.where(np.arange(100) % 2, 1, 2)
    measure = accuracy_measures(ranks, labels)["mean_per_class"]
    assert measure.value == pytest.approx(0.5)
    got = measure_interval(measure, resamples=300)
    assert 0.3 < got.low < 0.5 < got.high < 0.7
    only_first = (labels == 0).astype(float)
    assert measure.corpus(only_first) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_embeddings(np.ones((2, 3))), r"\(2, 3\) must be \[classes, prompts, size\]"),
        (lambda: class_embeddings(np.zeros((2, 3, 4))), "is zero or not finite"),
        (lambda: true_class_ranks(np.ones((2, 3)), [0]), "do not match"),
        (lambda: true_class_ranks(np.ones((2, 3)), [0, 3]), "labels from 0 to 3 for 3 classes"),
        (lambda: accuracy_measures(np.array([]), np.array([])), "no pictures"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
