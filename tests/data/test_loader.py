"""The training stream: a function of seed and position, however it is threaded, cut or shared."""

import json
import time

import numpy as np
import pytest
import toy

from capjax.data import tokenizer as tokenizer_lib
from capjax.data.loader import Examples, TrainLoader, eval_batches
from capjax.data.skips import SkipBudget
from capjax.errors import BadRecord, UserError

SIZE = 20
DEFAULT = toy.Source(size=SIZE)


@pytest.fixture(scope="module")
def tokenizer():
    source = toy.Source(size=SIZE)
    return tokenizer_lib.train([c for i in range(SIZE) for c in source.captions(i)], 64, 16)


def loader(tokenizer, source=DEFAULT, *, threads=2, max_bad_fraction=0.0, **kwargs):
    settings = {"seed": 0, "batch_size": 4, "image_size": 8, "resize": "squash"} | kwargs
    examples = Examples(source, tokenizer, **settings)
    return TrainLoader(examples, num_threads=threads, max_bad_fraction=max_bad_fraction)


def take(stream, count):
    return [next(stream) for _ in range(count)]


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a["key"] == b["key"]
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["tokens"], b["tokens"])


def keys(batches):
    return [key for batch in batches for key in batch["key"]]


def test_a_batch_is_what_tasks_expect(tokenizer):
    batch = next(loader(tokenizer))
    assert batch["image"].shape == (4, 8, 8, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["tokens"].shape == (4, 16)
    assert batch["tokens"].dtype == np.int32
    source = toy.Source(size=SIZE)
    for key, tokens, image in zip(batch["key"], batch["tokens"], batch["image"], strict=True):
        record = source[int(key.removeprefix("toy-"))]
        assert tokenizer.decode(tokens) in record["captions"]
        np.testing.assert_array_equal(image, record["image"])


def test_an_epoch_sees_every_record_once_in_a_new_order(tokenizer):
    batches = take(loader(tokenizer), 10)
    first, second = keys(batches[:5]), keys(batches[5:])
    everything = sorted(f"toy-{i}" for i in range(SIZE))
    assert sorted(first) == sorted(second) == everything
    assert first != second
    assert first != [f"toy-{i}" for i in range(SIZE)]
    assert keys(take(loader(tokenizer, seed=1), 5)) not in (first, second)


def test_captions_are_drawn_anew(tokenizer):
    rows = {}
    for batch in take(loader(tokenizer), 50):
        for key, tokens in zip(batch["key"], batch["tokens"], strict=True):
            rows.setdefault(key, set()).add(tokenizer.decode(tokens))
    assert all(len(captions) == 2 for captions in rows.values())


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_threads_change_nothing(tokenizer, threads):
    assert_same(take(loader(tokenizer, threads=threads), 8), take(loader(tokenizer), 8))


@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_it_goes_on_at_the_very_next_example(tokenizer, stop):
    kwargs = {"crop_scale": (0.3, 1.0), "flip": True}
    whole = take(loader(tokenizer, **kwargs), 10)
    stream = loader(tokenizer, **kwargs)
    take(stream, stop)
    state = json.loads(json.dumps(stream.state()))
    fresh = loader(tokenizer, **kwargs)
    take(fresh, 3)  # wherever it was
    fresh.restore(state)
    assert_same(take(fresh, 10 - stop), whole[stop:])


def test_processes_share_the_batch_of_one(tokenizer):
    whole = take(loader(tokenizer, flip=True), 6)
    parts = [
        take(loader(tokenizer, flip=True, process_index=i, process_count=2), 6) for i in range(2)
    ]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert first["key"] + second["key"] == batch["key"]
        np.testing.assert_array_equal(
            np.concatenate([first["image"], second["image"]]), batch["image"]
        )
    with pytest.raises(UserError, match="3 processes cannot share batch_size=4"):
        loader(tokenizer, process_count=3)


def test_crop_and_flip_draw_from_the_examples_own_generator(tokenizer):
    class Ramp(toy.Source):
        def __getitem__(self, index):
            ramp = np.arange(16 * 16 * 3, dtype=np.uint32).reshape(16, 16, 3) // 4
            return super().__getitem__(index) | {"image": ramp.astype(np.uint8)}

    def images(**kwargs):
        return np.concatenate([b["image"] for b in take(loader(tokenizer, Ramp(), **kwargs), 5)])

    plain, flipped = images(), images(flip=True)
    assert (plain == plain[0]).all()
    mirrored = np.array([np.array_equal(x, plain[0][:, ::-1]) for x in flipped])
    kept = np.array([np.array_equal(x, plain[0]) for x in flipped])
    assert (mirrored | kept).all()
    assert 0 < mirrored.sum() < len(flipped)
    cropped = images(crop_scale=(0.3, 0.6))
    assert len({x.tobytes() for x in cropped}) > len(cropped) // 2
    np.testing.assert_array_equal(cropped, images(crop_scale=(0.3, 0.6)))


def test_bad_records_are_replaced_and_counted(tokenizer):
    source = toy.Source(size=SIZE, bad=(3, 9))
    stream = loader(tokenizer, source, max_bad_fraction=0.1)
    batches = take(stream, 10)
    assert all(len(batch["key"]) == 4 for batch in batches)
    assert not {"toy-3", "toy-9"} & set(keys(batches))
    assert stream.bad_records == 2
    assert sorted(key for key, _ in stream.state()["bad"]) == ["toy-3", "toy-9"]


def test_one_bad_record_too_many_stops_at_the_same_batch_after_a_resume(tokenizer):
    def batches_before_the_stop(stream):
        start = stream.state()["batches"]
        with pytest.raises(UserError, match=r"3 of 20 records could not .* does not decode"):
            take(stream, 20)
        return stream.state()["batches"] - start

    source = toy.Source(size=SIZE, bad=(3, 9, 11))
    whole = batches_before_the_stop(loader(tokenizer, source, max_bad_fraction=0.1))
    for stop in range(whole + 1):
        stream = loader(tokenizer, source, max_bad_fraction=0.1, threads=4)
        take(stream, stop)
        state = stream.state()
        fresh = loader(tokenizer, source, max_bad_fraction=0.1)
        fresh.restore(state)
        assert stop + batches_before_the_stop(fresh) == whole


def test_without_a_budget_the_first_bad_record_stops(tokenizer):
    with pytest.raises(UserError, match="toy-"):
        take(loader(tokenizer, toy.Source(size=SIZE, bad=(3,))), 5)


def test_a_source_of_bad_records_only_ends(tokenizer):
    stream = loader(tokenizer, toy.Source(size=2, bad=(0, 1)), max_bad_fraction=1.0)
    with pytest.raises(UserError, match="100 records in a row could not be used"):
        next(stream)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([], "it has no caption"),
        ([""], "the caption is empty"),
        ([None], "a caption must be text"),
        (["red " * 50], "leaves room for 14"),
    ],
)
def test_a_caption_that_cannot_be_used_makes_a_bad_record(tokenizer, captions, message):
    class Odd(toy.Source):
        def captions(self, index):
            return captions if index == 3 else super().captions(index)

    with pytest.raises(UserError, match=f"'toy-3': .*{message}"):
        take(loader(tokenizer, Odd(size=SIZE)), 5)


def test_long_captions_are_cut_if_asked(tokenizer):
    class Long(toy.Source):
        def captions(self, index):
            return ["red picture " * 20]

    batch = next(loader(tokenizer, Long(size=SIZE), truncate=True))
    assert (batch["tokens"][:, -1] == 2).all()


def test_another_error_of_the_source_is_passed_on(tokenizer):
    class Broken(toy.Source):
        def __getitem__(self, index):
            raise ZeroDivisionError("a fault of the source")

    with pytest.raises(ZeroDivisionError):
        next(loader(tokenizer, Broken(size=SIZE)))


def test_an_empty_source_is_refused(tokenizer):
    with pytest.raises(UserError, match="has no records"):
        loader(tokenizer, toy.Source(size=0))


def test_threads_work_ahead(tokenizer):
    stream = loader(tokenizer, toy.Source(size=SIZE, slow=0.02), threads=4)
    began = time.monotonic()
    take(stream, 5)
    assert time.monotonic() - began < 20 * 0.02


def test_evaluation_sees_each_record_once_in_order():
    source = toy.Source(size=10, image_size=12)
    batches = list(eval_batches(source, 4, 8, "squash"))
    assert [b["mask"].tolist() for b in batches] == [
        [True] * 4,
        [True] * 4,
        [True, True, False, False],
    ]
    assert keys(batches) == [f"toy-{i}" for i in range(10)] + ["", ""]
    assert batches[0]["image"].shape == (4, 8, 8, 3)
    assert batches[2]["captions"][1] == source.captions(9)
    assert batches[2]["captions"][2:] == [[], []]
    assert not batches[2]["image"][2:].any()


def test_evaluation_stops_at_a_bad_record_unless_there_is_a_budget():
    source = toy.Source(size=10, bad=(2,))
    with pytest.raises(BadRecord, match="toy-2"):
        list(eval_batches(source, 4, 8, "squash"))
    skips = SkipBudget(10, 0.1)
    batches = list(eval_batches(source, 4, 8, "squash", skips))
    assert "toy-2" not in keys(batches)
    assert sum(b["mask"].sum() for b in batches) == 9
    assert skips.keys == ("toy-2",)


class Pairs:
    """Records of one picture, light on the left, and captions of which one speaks of sides."""

    def __init__(self, captions=("the light is on the left", "a light thing"), image=True, size=6):
        self.texts, self.image, self.size = list(captions), image, size

    def __len__(self):
        return self.size

    def captions(self, index):
        return self.texts

    def __getitem__(self, index):
        record = {"key": str(index), "captions": self.texts}
        if not self.image:
            return record
        image = np.zeros((8, 8, 3), np.uint8)
        image[:, :4] = 255
        return record | {"image": image}


@pytest.fixture(scope="module")
def words():
    return tokenizer_lib.train(Pairs().texts * 3, 60, 40)


def test_only_pictures_whose_caption_speaks_of_no_side_are_mirrored(words):
    batches = take(loader(words, Pairs(), flip=True, flip_sided=False), 30)
    mirrored = {True: 0, False: 0}
    for batch in batches:
        for image, tokens in zip(batch["image"], batch["tokens"], strict=True):
            mirrored["left" in words.decode(tokens)] += int(image[0, 0, 0] == 0)
    assert mirrored[True] == 0
    assert mirrored[False] > 10
    both = take(loader(words, Pairs(), flip=True), 30)
    for one, other in zip(batches, both, strict=True):
        np.testing.assert_array_equal(one["tokens"], other["tokens"])  # the same draws


def test_captions_are_chosen_by_the_rule(words):
    def read(**captions):
        stream = loader(words, Pairs(size=4), captions=captions)
        return [words.decode(t) for batch in take(stream, 3) for t in batch["tokens"]]

    first, second = Pairs().texts
    assert set(read(rule="first")) == {first}
    # Batches of 4 are epochs here.
    assert read(rule="epoch") == [first] * 4 + [second] * 4 + [first] * 4
    assert set(read(rule="weighted", weights=(0.0, 1.0))) == {second}
    assert set(read()) == {first, second}
    with pytest.raises(UserError, match="unknown rule of captions 'best'"):
        read(rule="best")


def test_rand_augment_changes_pictures_and_nothing_else(words):
    plain = take(loader(words, Pairs()), 10)
    changed = take(loader(words, Pairs(), rand_augment=AUGMENT), 10)
    assert_same(changed, take(loader(words, Pairs(), rand_augment=AUGMENT, threads=0), 10))
    different = 0
    for one, other in zip(plain, changed, strict=True):
        assert one["key"] == other["key"]
        different += sum(np.any(a != b) for a, b in zip(one["image"], other["image"], strict=True))
    assert different > 10
    with pytest.raises(UserError, match="unknown RandAugment policy"):
        loader(words, Pairs(), rand_augment=AUGMENT | {"policy": "none"})


AUGMENT = {"layers": 2, "magnitude": 9, "policy": "timm_increasing"}


def test_records_without_pictures_are_batches_of_text(words):
    batch = next(loader(words, Pairs(image=False)))
    assert sorted(batch) == ["captions", "key", "tokens"]
    assert batch["tokens"].shape == (4, 40)

    class Mixed(Pairs):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            return record if index % 2 else {k: v for k, v in record.items() if k != "image"}

    with pytest.raises(UserError, match="a batch must be of one kind"):
        take(loader(words, Mixed()), 3)
