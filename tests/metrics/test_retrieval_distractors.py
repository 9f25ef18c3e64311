"""Measures of retrieval in both directions, and retrieval among random distractors or bags."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.errors import UserError
from capjax.metrics.distractors import bag_recall, distractor_ranks, random_bags
from capjax.metrics.retrieval import (
    caption_image_ranks,
    median_over_queries,
    ranks,
    recall_from_ranks,
    retrieval_measures,
)


def embeddings(seed, images=12, captions_per_image=(1, 3)):
    """Images, captions near them, and the image of each caption."""
    generator = np.random.default_rng(seed)
    image_emb = generator.normal(size=(images, 4))
    count = generator.integers(captions_per_image[0], captions_per_image[1] + 1, images)
    owner = generator.permutation(np.repeat(np.arange(images), count))
    return image_emb, image_emb[owner] + generator.normal(size=(len(owner), 4)), owner


def test_both_directions_by_hand():
    images = np.eye(3)
    captions = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0.1], [0.2, 0, 1], [1, 0, 0.9]])
    got = retrieval_measures(
        images, ["x", "y", "z"], captions, ["y", "x", "x", "z", "z"], ks=(1, 2)
    )
    values = {name: measure.value for name, measure in got.items()}
    assert values == pytest.approx(
        {
            "image_to_text_recall_at_1": 1.0,
            "image_to_text_recall_at_2": 1.0,
            "image_to_text_median_rank": 1.0,
            "image_to_text_mean_rank": 1.0,
            "text_to_image_recall_at_1": 0.8,  # ranks 1 1 1 1 2
            "text_to_image_recall_at_2": 1.0,
            "text_to_image_median_rank": 1.0,
            "text_to_image_mean_rank": 1.2,
            "recall_sum": 3.8,
        }
    )
    assert got["text_to_image_median_rank"].per_image.tolist() == [1, 1, 1.5]
    # y twice, z three times: its captions, and so its miss, count three times among 8.
    weights = np.array([0, 2, 3])
    assert got["text_to_image_recall_at_1"].corpus(weights) == pytest.approx(5 / 8)
    assert got["image_to_text_recall_at_1"].corpus(weights) == 1
    assert got["recall_sum"].per_image.tolist() == [4, 4, 3.5]


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_a_drawing_of_images_repeats_the_queries_of_each(seed):
    image_emb, caption_emb, owner = embeddings(seed)
    to_image, to_text = caption_image_ranks(image_emb, range(12), caption_emb, owner)
    got = retrieval_measures(image_emb, range(12), caption_emb, owner, ks=(1, 5))
    drawn = np.random.default_rng(seed).integers(12, size=12)
    weights = np.bincount(drawn, minlength=12)
    queries = np.concatenate([to_image[owner == image] for image in drawn])
    assert got["text_to_image_median_rank"].corpus(weights) == np.median(queries)
    assert got["text_to_image_mean_rank"].corpus(weights) == pytest.approx(queries.mean())
    assert got["text_to_image_recall_at_5"].corpus(weights) == pytest.approx(np.mean(queries <= 5))
    assert got["image_to_text_median_rank"].corpus(weights) == np.median(to_text[drawn])
    assert got["image_to_text_recall_at_1"].value == recall_from_ranks(to_text, (1,))[1]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12))
def test_the_median_of_unit_weights_is_that_of_numpy(values):
    got = median_over_queries(np.array(values), np.arange(len(values)))
    assert got.value == np.median(values)
    assert got.per_image.tolist() == values


def test_bags_are_dealt_without_repeats():
    bags = random_bags(25, 6, draws=3, seed=1)
    assert bags.shape == (12, 6)
    for deal in bags.reshape(3, -1):
        assert len(set(deal.tolist())) == 24
    assert (random_bags(25, 6, draws=3, seed=1) == bags).all()
    assert (random_bags(25, 6, draws=3, seed=2) != bags).any()


def test_bag_recall_by_hand():
    gallery = np.eye(4)
    query = np.array([[1, 0.5, 2, 0], [0, 1, 0, 0], [1.0, -1, 0, 3], [0, 0, 0, 1]])
    got = bag_recall(query, gallery, [[0, 1], [1, 2, 3], [0, 2]])
    # Query 0 beats item 1 and loses to item 2; query 1 always hits; query 2 loses to 3 and to 0.
    assert got.per_image.tolist() == [0.5, 1, 0, 1]
    assert got.value == pytest.approx(4 / 7)
    assert got.corpus(np.array([3, 0, 1, 0])) == pytest.approx(3 / 8)
    assert bag_recall(query, gallery, [[1, 2, 3]], k=2).per_image.tolist()[1:] == [1, 1, 1]
    assert np.isnan(bag_recall(query, gallery, [[1, 2, 3]]).per_image[0])


def test_several_captions_of_an_item_are_averaged():
    query = np.array([[1.0, 0], [0, 1], [0, 1], [1, 0], [0, 1]])
    got = bag_recall(query, np.eye(2), [[1, 0]], query_item=[0, 0, 1, 1, 1])
    assert got.per_image == pytest.approx([1 / 2, 2 / 3])
    assert got.value == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_ties_count_against_the_model_unless_asked():
    same = np.ones((4, 2))
    assert bag_recall(same, same, [[0, 1, 2, 3]]).value == 0
    assert bag_recall(same, same, [[0, 1, 2, 3]], strict_ties=False).value == 1
    for strict, rank in ((True, 3), (False, 1)):
        got = distractor_ranks(same, same, np.arange(4), distractors=2, strict_ties=strict)
        assert set(got.ravel()) == {rank}


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_one_bag_of_all_and_all_others_as_distractors_are_plain_retrieval(seed):
    image_emb, caption_emb, owner = embeddings(seed, captions_per_image=(1, 1))
    rank = ranks(caption_emb, image_emb, owner)
    by_item = rank[np.argsort(owner)]
    for k in (1, 3):
        got = bag_recall(caption_emb, image_emb, [np.arange(12)], query_item=owner, k=k)
        assert got.per_image.tolist() == (by_item <= k).tolist()
    few = distractor_ranks(caption_emb, image_emb, owner, distractors=11, draws=2, seed=seed)
    assert few.tolist() == np.stack([rank, rank], axis=1).tolist()


def test_other_correct_items_are_never_distractors():
    # Items 0 to 2 are correct and items 0 and 1 beat the rest; item 2 does not.
    gallery = np.array([[1.0, 0], [1, 0.1], [0, 1], [1, 1], [1, 2]])
    got = distractor_ranks(
        np.array([[1.0, 0.0]]), gallery, [[0, 2, 1]], distractors=2, draws=50, seed=0
    )
    assert set(got.ravel()) == {1}
    last = distractor_ranks(np.array([[1.0, 0.0]]), gallery, [[2]], distractors=4, seed=0)
    assert last.tolist() == [[5]]


def test_bags_and_distractors_of_each_query_agree_on_average_with_the_exact_chance():
    image_emb, caption_emb, owner = embeddings(3, images=40, captions_per_image=(1, 1))
    query = caption_emb[np.argsort(owner)]
    rank = ranks(query, image_emb, np.arange(40))
    # All 4 distractors must come from the 40 - rank items behind the target.
    behind = 40 - rank
    exact = np.prod([(behind - i) / (39 - i) for i in range(4)], axis=0).clip(0).mean()
    assert 0.2 < exact < 0.8
    few = distractor_ranks(query, image_emb, np.arange(40), distractors=4, draws=400, seed=0)
    assert np.mean(few == 1) == pytest.approx(exact, abs=0.01)
    bags = random_bags(40, 5, draws=400, seed=0)
    assert bag_recall(query, image_emb, bags).value == pytest.approx(exact, abs=0.01)


def test_the_seed_decides():
    image_emb, caption_emb, owner = embeddings(1, images=40)
    first, again, other = (
        distractor_ranks(caption_emb, image_emb, owner, distractors=9, seed=seed)
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


TWO = np.eye(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_bags(99), "99 images do not fill a bag of 100"),
        (lambda: random_bags(9, 1), "at least 2"),
        (lambda: random_bags(9, 2, draws=0), "at least once"),
        (lambda: bag_recall(TWO, TWO, []), "no bags"),
        (lambda: bag_recall(TWO, TWO, [[0, 1, 1]]), "bag 0 holds an item twice"),
        (lambda: bag_recall(TWO, TWO, [[0, 1], [0]]), "bag 1 .* at least two"),
        (lambda: bag_recall(TWO, TWO, [[0, 2]]), "rows 0 to 2 of a gallery of 2"),
        (lambda: bag_recall(TWO[:1], TWO, [[0, 1]]), r"items \[1\] of bag 0 have no query"),
        (lambda: bag_recall(TWO, TWO, [[0, 1]], k=0), "k must be at least 1"),
        (lambda: bag_recall(TWO, np.eye(3), [[0, 1]]), "same size"),
        (lambda: distractor_ranks(TWO, TWO, [0, 1]), "query 0 has 1 items .* 99 distractors"),
        (lambda: distractor_ranks(TWO, TWO, [0, 1], distractors=0), "at least 1"),
        (lambda: distractor_ranks(TWO, TWO, [0], distractors=1), "2 queries but 1 targets"),
        (lambda: retrieval_measures(TWO, "ab", TWO, "ab", ks=(0,)), "k must be at least 1"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
