"""Distinct n-grams, vocabulary, novelty, lengths, self-BLEU: by hand and by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.errors import UserError
from capjax.metrics import References
from capjax.metrics.bleu import bleu_statistics
from capjax.metrics.diversity import caption_sets, distinct, diversity, length_measures
from capjax.metrics.lengths import lengths
from capjax.metrics.references import Candidates
from capjax.metrics.self_bleu import mbleu, self_bleu, self_bleu_statistics

CAPTION = st.lists(st.sampled_from(["a", "b", "c", "dog", "runs"]), max_size=7)
SETS = st.lists(st.lists(CAPTION, min_size=1, max_size=4), min_size=1, max_size=6)
SEVERAL = st.lists(st.lists(CAPTION, min_size=2, max_size=5), min_size=1, max_size=5)


def split(*images):
    return [[caption.split() for caption in captions] for captions in images]


def values(measures):
    return {name: measure.value for name, measure in measures.items()}


def test_by_hand():
    tokens = split(["a red ball", "a blue ball"], ["a red ball", "a red ball"])
    training = [["a", "blue", "ball"], ["a", "red"]]
    got = diversity(tokens, training)
    assert values(got) == pytest.approx(
        {
            "distinct_1": 4 / 12,
            "distinct_2": 4 / 8,
            "div_1": (4 / 6 + 3 / 6) / 2,
            "div_2": (4 / 6 + 2 / 6) / 2,
            "vocabulary": 4,
            "unique_captions": 2 / 4,
            "novelty": 3 / 4,
        }
    )
    assert got["distinct_1"].per_image == pytest.approx([4 / 6, 3 / 6])
    assert got["distinct_2"].per_image == pytest.approx([4 / 4, 2 / 4])
    assert got["unique_captions"].per_image.tolist() == [1, 0.5]
    assert got["novelty"].per_image.tolist() == [0.5, 1]
    assert got["vocabulary"].per_image.tolist() == [4, 3]
    # The second image three times: its things are distinct once, its captions count thrice.
    weights = np.array([0, 3])
    drawn = {name: measure.corpus(weights) for name, measure in got.items()}
    assert drawn == pytest.approx(
        {
            "distinct_1": 3 / 18,
            "distinct_2": 2 / 12,
            "div_1": 3 / 6,
            "div_2": 2 / 6,
            "vocabulary": 3,
            "unique_captions": 1 / 6,
            "novelty": 1,
        }
    )


@settings(deadline=None)
@given(SETS, st.integers(0, 1000))
def test_any_drawing_is_as_if_its_captions_were_all(tokens, seed):
    drawn = np.random.default_rng(seed).integers(len(tokens), size=len(tokens))
    weights = np.bincount(drawn, minlength=len(tokens))
    captions = [caption for image in drawn for caption in tokens[image]]
    got = {name: m.corpus(weights) for name, m in diversity(tokens, [["a"]]).items()}
    for n in (1, 2):
        grams = [tuple(c[i : i + n]) for c in captions for i in range(len(c) - n + 1)]
        expected = len(set(grams)) / len(grams) if grams else np.nan
        assert got[f"distinct_{n}"] == pytest.approx(expected, nan_ok=True)
    assert got["vocabulary"] == len({word for c in captions for word in c})
    assert got["unique_captions"] == pytest.approx(len(set(map(tuple, captions))) / len(captions))
    assert got["novelty"] == pytest.approx(np.mean([c != ["a"] for c in captions]))


@settings(deadline=None)
@given(SETS, st.randoms(use_true_random=False))
def test_the_order_of_images_and_captions_changes_nothing_and_shares_are_shares(tokens, chance):
    shuffled = [chance.sample(captions, len(captions)) for captions in tokens]
    chance.shuffle(shuffled)
    before, after = values(diversity(tokens)), values(diversity(shuffled))
    assert after == pytest.approx(before, nan_ok=True)
    assert all(np.isnan(v) or 0 <= v <= 1 for name, v in before.items() if name != "vocabulary")


def test_captions_too_short_for_an_n_gram_have_no_share():
    got = distinct(caption_sets(split(["dog"], ["a dog"])), 2)
    assert np.isnan(got.per_image[0])
    assert got.per_image[1] == 1
    assert got.value == 1
    assert np.isnan(got.corpus(np.array([2, 0])))


def test_lengths_are_those_of_the_captions_drawn():
    captions = [["a dog", " a  cat runs. "], ["the dog sleeps on a bed"]]
    got = length_measures(captions)
    flat = [text for own in captions for text in own]
    assert values(got) == pytest.approx(lengths(flat))
    drawn = {name: measure.corpus(np.array([2, 1])) for name, measure in got.items()}
    assert drawn == pytest.approx(lengths(captions[0] * 2 + captions[1]))
    assert got["words"].per_image.tolist() == [2.5, 6]
    assert got["words_sd"].per_image.tolist() == [0.5, 0]


# By pycocoevalcap 1.2: `Bleu(4)` of each caption of an image against its other two.
FROZEN = split(
    ["a man rides a red horse", "the man is riding a horse on the beach", "a man on a horse"],
    ["two dogs play in the snow", "two dogs play in the snow with a ball", "dogs"],
    ["a a a b", "a a b", "a b b c"],
)
FROZEN_MBLEU = [0.5917085536886358, 0.4899670872484781, 0.3356342036295803, 0.2980080833114752]
FROZEN_PER_IMAGE = [
    [0.6432806212337024, 0.393260233064074, 3.239547284272196e-06, 1.0069408017223338e-08],
    [0.426645091029553, 0.4173448739130117, 0.40877647581478915, 0.3979752606432941],
    [0.6555104364903676, 0.6106287936942173, 0.4488320674539494, 0.007594823292587438],
]


def test_self_bleu_is_that_of_coco_caption():
    mean, corpus = self_bleu(FROZEN), mbleu(FROZEN)
    for n in range(4):
        expected = np.array(FROZEN_PER_IMAGE)[:, n]
        assert mean[f"self_bleu_{n + 1}"].per_image == pytest.approx(expected, rel=1e-9)
        assert mean[f"self_bleu_{n + 1}"].value == pytest.approx(expected.mean(), rel=1e-9)
        assert corpus[f"mbleu_{n + 1}"].per_image == pytest.approx(expected, rel=1e-9)
        assert corpus[f"mbleu_{n + 1}"].value == pytest.approx(FROZEN_MBLEU[n], rel=1e-9)


@settings(deadline=None)
@given(SEVERAL)
def test_the_counts_are_those_of_bleu_with_the_others_as_references(tokens):
    got = self_bleu_statistics(caption_sets(tokens))
    alone = [(captions, i) for captions in tokens for i in range(len(captions))]
    others = References(
        range(len(alone)), [captions[:i] + captions[i + 1 :] for captions, i in alone]
    )
    expected = bleu_statistics(Candidates(others, [captions[i] for captions, i in alone]))
    assert got.tolist() == expected.tolist()


def test_mbleu_of_a_drawing_is_that_of_the_captions_drawn():
    for n in range(1, 5):
        name = f"mbleu_{n}"
        drawn = mbleu(FROZEN)[name].corpus(np.array([2, 0, 1]))
        assert drawn == pytest.approx(mbleu([FROZEN[0], FROZEN[0], FROZEN[2]])[name].value)


@settings(deadline=None)
@given(SEVERAL, st.randoms(use_true_random=False))
def test_self_bleu_keeps_in_range_whatever_the_order(tokens, chance):
    shuffled = [chance.sample(captions, len(captions)) for captions in tokens]
    chance.shuffle(shuffled)
    before, after = values(self_bleu(tokens)), values(self_bleu(shuffled))
    assert after == pytest.approx(before, abs=1e-12)
    assert all(0 <= value <= 1 + 1e-6 for value in before.values())


def test_equal_captions_have_self_bleu_1():
    got = values(self_bleu(split(["a dog runs fast here"] * 3)))
    assert got == pytest.approx(dict.fromkeys(got, 1.0), abs=1e-6)


def test_all_captions_of_a_system_are_one_set():
    captions = [f"a {colour} ball near {place}".split() for colour in "rgb" for place in "xyz"]
    bleu_1 = self_bleu([captions])["self_bleu_1"].value
    assert bleu_1 == pytest.approx(1.0, abs=1e-6)  # each word stands in another caption
    assert self_bleu([captions])["self_bleu_4"].value < 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diversity([]), "no captions"),
        (lambda: diversity([[["a"]], []]), "image number 1 has no caption"),
        (lambda: diversity([[["a"]]], []), "no training captions"),
        (lambda: distinct(caption_sets([[["a"]]]), 5), "n is 1 to 4"),
        (lambda: length_measures([["a"], []]), "without captions"),
        (lambda: self_bleu([[["a"], ["b"]], [["a"]]]), "image number 1 has one caption"),
        (lambda: mbleu([[["a"]] * 2, [["a"]] * 3]), "1 has 3 captions and the first 2"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
