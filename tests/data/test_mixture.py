"""Mixtures: one source a batch, drawn as often as asked, the same on every process and resume."""

import pickle
import types

import numpy as np
import pytest

from capjax.data.cache import Cached
from capjax.data.loader import Examples, TrainLoader
from capjax.data.mixture import Source
from capjax.data.tokenizer import train
from capjax.errors import BadRecord, UserError
from capjax.runs import check_prefixes

A, B, C = (
    {"name": "mixture_world", "size": size, "colour": colour}
    for size, colour in ((500, "red"), (1100, "green"), (300, "blue"))
)
SOURCES = {"a": A, "b": B, "c": C}
WEIGHTS = {"a": 1, "b": 2, "c": 1}


@pytest.fixture(scope="module")
def tokenizer():
    return train([f"{colour} {i}" for colour in ("red", "green", "blue") for i in range(11)], 60, 8)


def examples(tokenizer, source, batch_size=4, **kwargs):
    options = (
        dict(seed=3, batch_size=batch_size, image_size=8, resize="squash", truncate=True) | kwargs
    )
    return Examples(source, tokenizer, **options)


def drawn(source, batches=500, batch_size=4, seed=3):
    """int [batches, batch_size]: the source of each row."""
    order = source.order(seed, batch_size)
    records = [order[position] for position in range(batches * batch_size)]
    numbers = np.searchsorted(np.cumsum([500, 1100, 300]), records, side="right")
    return numbers.reshape(batches, batch_size)


def test_each_batch_has_one_source_drawn_as_often_as_its_weight_says():
    numbers = drawn(Source(SOURCES, WEIGHTS))
    assert np.all(numbers == numbers[:, :1])
    for number, chance in enumerate((0.25, 0.5, 0.25)):
        expected = 500 * chance
        assert abs(np.sum(numbers[:, 0] == number) - expected) < 3 * np.sqrt(
            expected * (1 - chance)
        )


def test_by_example_the_sources_mix_within_a_batch():
    numbers = drawn(Source(SOURCES, WEIGHTS, single_source=False))
    assert np.mean(numbers == numbers[:, :1]) < 0.7
    assert abs(np.mean(numbers == 1) - 0.5) < 0.05


def test_every_record_of_a_source_comes_before_any_comes_twice():
    source = Source(SOURCES, WEIGHTS)
    order = source.order(0, 4)
    seen = {0: [], 1: [], 2: []}
    for position in range(6000):
        record = order[position]
        seen[int(np.searchsorted(source.first, record, side="right")) - 1].append(record)
    for number, size in enumerate((500, 1100, 300)):
        epochs = [seen[number][i : i + size] for i in range(0, len(seen[number]) - size, size)]
        assert all(len(set(epoch)) == size for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_the_order_is_a_function_of_seed_and_position_alone():
    whole = drawn(Source(SOURCES, WEIGHTS))
    order = Source(SOURCES, WEIGHTS).order(3, 4)
    late = [order[position] for position in range(1999, 999, -1)]  # as after a restart, backwards
    first = Source(SOURCES, WEIGHTS).first
    tail = np.searchsorted(first, late[::-1], side="right") - 1
    assert np.array_equal(tail, whole.reshape(-1)[1000:])
    assert not np.array_equal(drawn(Source(SOURCES, WEIGHTS), seed=4), whole)
    far = order.draw(100_000)
    assert far == Source(SOURCES, WEIGHTS).order(3, 4).draw(100_000)
    assert 0 <= far[0] < 3
    assert 20_000 < far[1] < 60_000


def test_a_source_of_weight_zero_never_comes():
    assert set(drawn(Source(SOURCES, {"a": 1, "b": 0, "c": 1})).reshape(-1)) == {0, 2}


def test_processes_share_the_source_of_a_batch(tokenizer):
    source = Source(SOURCES, WEIGHTS)
    whole = examples(tokenizer, source)
    parts = [
        examples(tokenizer, Source(SOURCES, WEIGHTS), process_index=i, process_count=2)
        for i in range(2)
    ]
    for batch in range(50):
        rows = [whole[4 * batch + row]["key"] for row in range(4)]
        shared = [parts[row // 2][2 * batch + row % 2]["key"] for row in range(4)]
        assert shared == rows


def test_batches_say_where_their_pairs_come_from(tokenizer):
    loader = TrainLoader(examples(tokenizer, Cached(Source(SOURCES, WEIGHTS))))
    for _ in range(20):
        batch = next(loader)
        assert batch["source"].dtype == np.int32
        assert len(set(batch["source"])) == 1
        assert {key.split("/")[0] for key in batch["key"]} == {"abc"[batch["source"][0]]}
    state = loader.state()
    expected = [next(loader) for _ in range(5)]
    again = TrainLoader(examples(tokenizer, Source(SOURCES, WEIGHTS)))
    again.restore(state)
    for batch in expected:
        resumed = next(again)
        assert resumed["key"] == batch["key"]
        assert np.array_equal(resumed["source"], batch["source"])


def test_a_spoilt_record_is_replaced_by_one_of_its_source(tokenizer):
    spoilt = dict(A, bad=range(0, 500, 10))
    loader = TrainLoader(examples(tokenizer, Source({"a": spoilt, "b": B})), max_bad_fraction=0.5)
    batches = [next(loader) for _ in range(40)]
    assert all(len(set(batch["source"])) == 1 for batch in batches)
    assert loader.bad_records > 3


def test_labels_become_sentences_with_class_numbers(tokenizer):
    labels = {
        "name": "capjax.data.prompted",
        "data": dict(A, label=True),
        "classes": ["cat", "dog"],
        "templates": ["a {}", "the {} ."],
    }
    source = Source({"captions": B, "labels": labels}, single_source=False)
    record = source[len(source) - 1]
    assert record["captions"] == ["a dog", "the dog ."]
    assert (record["class_id"], record["source"], record["key"]) == (1, 1, "labels/499")
    assert source.captions(len(source) - 2) == ["a cat", "the cat ."]
    batch = next(TrainLoader(examples(tokenizer, source, batch_size=32)))
    labelled = batch["source"] == 1
    assert set(batch["class_id"][labelled]) == {0, 1}
    assert set(batch["class_id"][~labelled]) == {-1}
    bare = Source({"labels": dict(labels, classes=["cat", "bird"])})
    with pytest.raises(BadRecord, match="record 'labels/1': its 'label' is 'dog', which is no"):
        bare[1]


def test_prefixes_are_found_by_the_number_of_their_source():
    model = types.SimpleNamespace(prefixes=("a", "b"))
    two = {"a": A, "b": B}
    for source in (Source(two), Cached(Source(two))):
        check_prefixes(model, source)
    check_prefixes(object(), Source(SOURCES))
    for source, said in ((Source(SOURCES), "a, b, c"), ([], "have no names")):
        message = f"prefixes are a, b and the sources of the training data {said}: train on"
        with pytest.raises(UserError, match=message):
            check_prefixes(model, source)
    with pytest.raises(UserError, match="prefixes are b, a and the sources"):
        check_prefixes(types.SimpleNamespace(prefixes=("b", "a")), Source(two))


def test_a_mixture_travels_to_other_processes():
    source = pickle.loads(pickle.dumps(Source(SOURCES, WEIGHTS)))
    assert source[501]["key"] == "b/1"
    assert source.captions(1602) == ["blue 2"]
    with pytest.raises(IndexError):
        source[1900]


@pytest.mark.parametrize(
    ("sources", "weights", "message"),
    [
        ({}, None, "at least one source"),
        (SOURCES, {"a": 1}, "weights of the mixture name a and its sources a, b, c"),
        (SOURCES, {"a": 1, "b": 1, "c": 1, "d": 1}, "name a, b, c, d and its sources a, b, c"),
        (SOURCES, {"a": -1, "b": 1, "c": 1}, "must not be negative"),
        (SOURCES, {"a": 0, "b": 0, "c": 0}, "one must be above zero"),
        (SOURCES, {"a": float("nan"), "b": 0, "c": 1}, "must not be negative"),
        ({"a": dict(A, size=0)}, None, "source 'a' of the mixture has no records"),
        ({"a": {"name": "no.where"}}, None, "the source 'a' of the mixture.*no.where"),
    ],
)
def test_mistakes_are_named(sources, weights, message):
    with pytest.raises(UserError, match=message):
        Source(sources, weights)


def test_a_curriculum_moves_from_one_source_to_another():
    """Batches of a alone at first, of a and b alike at the end; linear in between."""
    curriculum = ((0, {"a": 1, "b": 0, "c": 0}), (400, {"a": 1, "b": 1, "c": 0}))
    for single_source in (True, False):
        source = Source(SOURCES, single_source=single_source, curriculum=curriculum)
        numbers = drawn(source, batches=1200)
        assert not np.any(numbers == 2)
        assert np.all(numbers[0] == 0)
        share = [np.mean(part == 1) for part in np.split(numbers, 12)]
        # Halves of 1/8 at steps 0-100, 3/8 .. of the way to one half, and then 1/2.
        expected = [0.0625, 0.1875, 0.3125, 0.4375, *[0.5] * 8]
        spread = 3 * 0.5 / np.sqrt(100)
        np.testing.assert_allclose(share, expected, atol=spread)
        again = Source(SOURCES, single_source=single_source, curriculum=curriculum)
        np.testing.assert_array_equal(numbers[700:720], drawn(again, batches=720)[700:])


def test_a_curriculum_of_one_entry_is_the_weights():
    steady = Source(SOURCES, curriculum=((0, WEIGHTS),))
    np.testing.assert_array_equal(drawn(steady), drawn(Source(SOURCES, WEIGHTS)))


@pytest.mark.parametrize(
    ("curriculum", "message"),
    [
        (((5, WEIGHTS), (5, WEIGHTS)), r"steps \[5, 5\] must rise"),
        (((-1, WEIGHTS),), "must rise, from 0 or more"),
        (((0, {"a": 1}),), "weights of the mixture name a and its sources"),
    ],
)
def test_mistakes_of_a_curriculum_are_named(curriculum, message):
    with pytest.raises(UserError, match=message):
        Source(SOURCES, curriculum=curriculum)
    with pytest.raises(UserError, match="weights and a curriculum"):
        Source(SOURCES, WEIGHTS, curriculum=((0, WEIGHTS),))
