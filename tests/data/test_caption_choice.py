"""Which caption is used: every rule, what it draws, and each caption as an example of its own."""

import pickle

import numpy as np
import pytest

from capjax.data.caption_choice import RULES, CaptionChoice
from capjax.data.each_caption import EachCaption, Source
from capjax.errors import BadRecord, UserError

CAPTIONS = ["a dog", "a dog runs on grass", "the brown dog runs on", "dog"]
RECORD = {"key": "dog.jpg", "captions": CAPTIONS, "score": [0, 0, 3.0, 1.0]}


def draws(choice, n=4000, record=RECORD):
    rng = np.random.default_rng(0)
    return np.bincount([choice.index(record, rng) for _ in range(n)], minlength=4) / n


def test_random_draws_as_the_loader_always_did():
    """The stream of runs that exist must not change: one `integers(n)` an example."""
    mine, theirs = np.random.default_rng(7), np.random.default_rng(7)
    choice = CaptionChoice()
    for _ in range(50):
        assert choice.index(RECORD, mine) == int(theirs.integers(4))
    assert mine.random() == theirs.random()


@pytest.mark.parametrize("rule", ["epoch", "first", "longest"])
def test_rules_without_chance_leave_the_generator(rule):
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    CaptionChoice(rule).index(RECORD, rng, 2)
    assert rng.bit_generator.state == before


def test_in_as_many_epochs_as_captions_each_is_used_once():
    used = [CaptionChoice("epoch").index(RECORD, None, epoch) for epoch in range(8)]
    assert used == [0, 1, 2, 3, 0, 1, 2, 3]


def test_first_and_longest():
    assert CaptionChoice("first").index(RECORD, None) == 0
    assert CaptionChoice("longest").index(RECORD, None) == 2
    assert CaptionChoice("longest").index({"key": "k", "captions": ["ab", "cd", "e"]}, None) == 0


def test_weights_by_place_and_by_a_field_of_the_record():
    np.testing.assert_allclose(
        draws(CaptionChoice("weighted", [1, 2, 0, 1, 9])), [0.25, 0.5, 0, 0.25], atol=0.03
    )
    np.testing.assert_allclose(
        draws(CaptionChoice("weighted", "score")), [0, 0, 0.75, 0.25], atol=0.03
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("all",), "capjax.data.each_caption"),
        (("weighted",), "needs weights"),
        (("first", [1.0]), "takes no weights"),
        (("weighted", [1.0, -1.0]), "must not be negative"),
        (("weighted", [0, 0]), "one must be above zero"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_at_once(fields, message):
    with pytest.raises(UserError, match=message):
        CaptionChoice(*fields)


@pytest.mark.parametrize(
    ("choice", "record", "message"),
    [
        (CaptionChoice(), {"captions": []}, "no caption"),
        (CaptionChoice("weighted", [1.0]), {}, "4 captions, but there are 1 weights"),
        (CaptionChoice("weighted", [0, 0, 1]), {"captions": ["a", "b"]}, "usable weight"),
        (CaptionChoice("weighted", "quality"), {}, "lacks the field 'quality'"),
        (CaptionChoice("weighted", "score"), {"score": [1.0]}, "not a list of 4"),
        (CaptionChoice("weighted", "score"), {"score": ["a"] * 4}, "usable weight"),
    ],
)
def test_a_record_that_does_not_fit_is_bad(choice, record, message):
    with pytest.raises(BadRecord, match=message):
        choice.index({**RECORD, **record}, np.random.default_rng(0))


def test_a_choice_can_be_sent_to_another_process():
    for rule in RULES:
        choice = CaptionChoice(rule, "score" if rule == "weighted" else ())
        assert pickle.loads(pickle.dumps(choice)) == choice


class Records:
    """A source in memory."""

    def __init__(self, captions):
        self._captions = captions

    def __len__(self):
        return len(self._captions)

    def __getitem__(self, i):
        image = np.full((2, 2, 3), i, np.uint8)
        return {"key": f"r{i}", "image": image, "captions": self._captions[i], "extra": i}

    def captions(self, i):
        return self._captions[i]


class Stored(Records):
    """One that can also hand out its pictures as they are stored."""

    def encoded(self, i):
        return {"key": f"r{i}", "image": b"%d" % i, "captions": self._captions[i]}


def test_each_caption_becomes_a_record():
    source = EachCaption(Records([["a", "b"], [], ["c"]]))
    assert [source[i]["key"] for i in range(len(source))] == ["r0#0", "r0#1", "r2#0"]
    assert [source[i]["captions"] for i in range(3)] == [source.captions(i) for i in range(3)]
    assert [source.captions(i) for i in range(3)] == [["a"], ["b"], ["c"]]
    assert [int(source[i]["image"][0, 0, 0]) for i in range(3)] == [0, 0, 2]
    assert source[2]["extra"] == 2
    assert source.pair(1) == (0, 1)
    for index in (3, -1):
        with pytest.raises(IndexError):
            source[index]


def test_stored_pictures_are_passed_on_where_the_source_has_them():
    assert not hasattr(EachCaption(Records([["a"]])), "encoded")
    source = pickle.loads(pickle.dumps(EachCaption(Stored([["a", "b"]]))))
    assert source.encoded(1) == {"key": "r0#1", "image": b"0", "captions": ["b"]}


def test_captions_that_change_after_opening_make_a_bad_record():
    records = Records([["a", "b"]])
    source = EachCaption(records)
    records._captions[0] = ["a"]
    with pytest.raises(BadRecord, match="had 2 when counted"):
        source[1]


def test_each_caption_of_generated_scenes_by_config():
    captions = {"short": 1, "generic": 1}
    source = Source({"name": "capjax.data.scenes", "seed": 0, "size": 3, "captions": captions})
    assert len(source) == 6
    assert len({source[i]["key"] for i in range(6)}) == 6


def test_a_mixture_is_wrapped_source_by_source():
    records = Records([["a"]])
    records.names = ("a", "b")
    with pytest.raises(UserError, match="wrap each source"):
        EachCaption(records)
