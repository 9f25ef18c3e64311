"""Retrieval: ranks by hand, both directions, ties, and mistakes in ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capjax.errors import UserError
from capjax.metrics import retrieval
from capjax.metrics.retrieval import caption_image_ranks, ranks, recall_at_k, recall_from_ranks


def test_ranks_by_hand():
    gallery = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    query = np.array([[5.0, 0.1], [0.1, 1.0], [1.0, 0.2]])
    assert ranks(query, gallery, [0, 0, 2]).tolist() == [1, 3, 3]
    assert recall_at_k(query, gallery, [0, 0, 2], ks=(1, 2, 3)) == {1: 1 / 3, 2: 1 / 3, 3: 1.0}


def test_the_best_of_several_targets_counts_and_the_others_do_not_push_it_back():
    gallery = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0]])
    query = np.array([[1.0, 0.15], [0.0, 1.0]])
    assert ranks(query, gallery, [[1, 2], [0, 1]]).tolist() == [1, 3]
    assert ranks(query, gallery, [[0, 3], [3]]).tolist() == [3, 1]


@pytest.mark.parametrize("size", [2, 37])
def test_equal_embeddings_earn_nothing(size):
    constant = np.tile(np.random.default_rng(size).normal(size=64), (size, 1))
    assert set(ranks(constant, constant, np.arange(size))) == {size}
    assert recall_at_k(constant, constant, np.arange(size), ks=(1,)) == {1: 0.0}
    distinct = np.random.default_rng(1).normal(size=(size, 64))
    assert recall_at_k(distinct, distinct, np.arange(size), ks=(1,)) == {1: 1.0}


def test_blocks_of_queries_change_nothing(monkeypatch):
    generator = np.random.default_rng(0)
    query, gallery = generator.normal(size=(2, 50, 4))
    whole = ranks(query, gallery, np.arange(50))
    monkeypatch.setattr(retrieval, "_BLOCK", 7 * 50)
    assert ranks(query, gallery, np.arange(50)).tolist() == whole.tolist()


@given(st.integers(0, 1000))
def test_ranks_are_those_of_a_sort_and_do_not_depend_on_the_order_of_the_gallery(seed):
    generator = np.random.default_rng(seed)
    query, gallery = generator.normal(size=(6, 3)), generator.normal(size=(9, 3))
    targets = generator.integers(9, size=6)
    got = ranks(query, gallery, targets)
    cosine = query @ (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).T
    by_sort = np.argsort(-cosine, axis=1)
    assert got.tolist() == [list(by_sort[i]).index(targets[i]) + 1 for i in range(6)]
    order = generator.permutation(9)
    moved = np.argsort(order)[targets]
    assert ranks(query, gallery[order], moved).tolist() == got.tolist()


def test_both_directions_by_id():
    images = np.eye(3)
    captions = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0.1], [0.2, 0, 1], [1, 0, 0.9]])
    of_image = ["y", "x", "x", "z", "z"]
    to_image, to_caption = caption_image_ranks(images, ["x", "y", "z"], captions, of_image)
    assert to_image.tolist() == [1, 1, 1, 1, 2]
    assert to_caption.tolist() == [1, 1, 1]
    assert recall_from_ranks(to_image, ks=(1,)) == {1: 0.8}


@pytest.mark.parametrize(
    ("image_ids", "caption_ids", "message"),
    [
        (["x", "x"], ["x", "x"], "'x' stands twice"),
        (["x", "y"], ["x"], "1 captions for 2 images"),
        (["x", "y"], ["x", "x"], "'y' has no caption"),
        (["x", "y"], ["x", "y", "z"], "1 captions .* 'z'"),
    ],
)
def test_mistakes_in_ids_are_named(image_ids, caption_ids, message):
    with pytest.raises(UserError, match=message):
        caption_image_ranks(
            np.ones((len(image_ids), 2)), image_ids, np.ones((len(caption_ids), 2)), caption_ids
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ranks(np.ones((2, 3)), np.ones((2, 4)), [0, 1]), "same size"),
        (lambda: ranks(np.ones((2, 3)), np.ones((2, 3)), [0]), "2 queries but 1 targets"),
        (lambda: ranks(np.ones((1, 3)), np.ones((2, 3)), [2]), "gallery of 2"),
        (lambda: ranks(np.ones((1, 3)), np.ones((2, 3)), [[]]), "query 0 has no target"),
        (lambda: recall_from_ranks(np.ones(3), ks=(0,)), "k must be at least 1"),
        (
            lambda: caption_image_ranks(np.ones((2, 2)), ["x"], np.ones((1, 2)), ["x"]),
            "2 image embeddings but 1 image ids",
        ),
    ],
)
def test_other_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
