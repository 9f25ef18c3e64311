"""CHAIR by hand and by brute force, the words that name objects, and the files they come from."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.errors import UserError
from capjax.metrics import References, tokenize
from capjax.metrics.chair import chair, true_objects
from capjax.metrics.object_words import ObjectVocabulary, load_annotations
from capjax.metrics.plurals import singular

OBJECTS = {
    "person": ["man", "woman", "child", "baby", "people"],
    "dog": ["puppy"],
    "hot dog": [],
    "bear": ["polar bear"],
    "chair": ["seat"],
    "toilet": [],
    "tie": [],
    "wine glass": ["glass of wine"],
    "dish": ["plate"],
    "glasses": ["sunglasses"],
}
RULES = {
    "compounds": {
        "baby bear": "bear",
        "toilet seat": "toilet",
        "bow tie": "tie",
        "home plate": None,
    },
    "unless": {"seat": "toilet"},
}
VOCABULARY = ObjectVocabulary(OBJECTS, **RULES)


def mentioned(caption):
    return [mention.object for mention in VOCABULARY.mentions(tokenize(caption))]


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("A man with two Hot Dogs and a dog.", ["person", "hot dog", "dog"]),
        ("women and children", ["person", "person"]),
        ("a baby bear and a baby", ["bear", "person"]),
        ("three polar bears", ["bear"]),
        ("a man in a bow tie", ["person", "tie"]),
        ("he slides to home plate; plates", ["dish"]),
        ("a toilet seat", ["toilet"]),
        ("a toilet with the seat up", ["toilet"]),
        ("a seat on a bus", ["chair"]),
        ("two glasses of wine, wine glasses, glasses", ["wine glass", "wine glass", "glasses"]),
        ("a glass", []),
        ("people on a hot day with their puppies", ["person", "dog"]),
        ("", []),
    ],
)
def test_mentions(caption, objects):
    assert mentioned(caption) == objects


def test_a_mention_keeps_the_words_of_the_caption():
    got = VOCABULARY.mentions(tokenize("Two baby bears, puppies"))
    assert got == [("baby bears", "bear"), ("puppies", "dog")]


def test_plurals():
    words = """puppies puppy ties tie buses bus cactuses cactus houses house vases vase horses horse
    dishes dish boxes box benches bench glasses glass glass glass tennis tennis knives knife
    gloves glove women woman firemen fireman omen omen people person tomatoes tomato shoes shoe
    skis ski skies sky cookies cookie berries berry sheep sheep gas gas giraffes giraffe
    quizzes quiz waltzes waltz noses nose lenses lens canvases canvas is is zebras zebra"""
    pairs = iter(words.split())
    for plural, expected in zip(pairs, pairs, strict=True):
        assert singular(plural) == expected
        assert singular(expected) == expected


def corpus():
    """Three images; the first shows a man by its reference and a dog by annotation."""
    references = References.from_captions({7: ["a man sits"], 8: ["a toilet"], 9: ["grass"]})
    truth = true_objects(references, VOCABULARY, {"7": ["puppy"], "8": [], "9": ["bear"]})
    captions = {7: "a man, a dog, a dog and a tie", 8: "a seat and a seat", 9: "a bowl"}
    return references.align(captions).tokens, truth


def test_by_hand():
    tokens, truth = corpus()
    assert truth == [{"person", "dog"}, {"toilet"}, {"bear"}]
    got = chair(tokens, truth, VOCABULARY)
    values = {name: measure.value for name, measure in got.measures.items()}
    assert values == pytest.approx({"chair_i": 3 / 6, "chair_s": 2 / 3, "object_recall": 2 / 4})
    assert got.measures["chair_i"].per_image.tolist() == [1 / 4, 1, 0]
    assert got.measures["chair_s"].per_image.tolist() == [1, 1, 0]
    assert got.measures["object_recall"].per_image.tolist() == [1, 0, 0]
    assert got.hallucinated == [[("tie", "tie")], [("seat", "chair"), ("seat", "chair")], []]
    assert [len(own) for own in got.mentions] == [4, 2, 0]
    drawn = {name: m.corpus(np.array([2, 0, 1])) for name, m in got.measures.items()}
    assert drawn == pytest.approx({"chair_i": 2 / 8, "chair_s": 2 / 3, "object_recall": 4 / 5})


def test_an_image_without_objects_has_no_recall():
    got = chair([["a", "dog"], ["a", "dog"]], [{"dog"}, set()], VOCABULARY)
    assert np.isnan(got.measures["object_recall"].per_image[1])
    assert got.measures["object_recall"].value == 1
    assert got.measures["chair_i"].value == 0.5


TEXT = "man puppies hot dog dogs baby bear bears toilet seat bow tie grass"
WORD = st.sampled_from(TEXT.split())
CAPTIONS = st.lists(st.lists(WORD, max_size=8), min_size=1, max_size=5)
TRUTH = st.sets(st.sampled_from(sorted(OBJECTS)))


@settings(deadline=None)
@given(CAPTIONS, st.data())
def test_values_by_brute_force_in_any_order(captions, data):
    captions = [*captions, ["dog"]]
    truth = [data.draw(TRUTH) for _ in captions]
    truth[-1] = {"dog"}
    names = {"man": "person", "puppies": "dog", "dog": "dog", "dogs": "dog", "baby": "person"}
    names |= {"bear": "bear", "bears": "bear", "toilet": "toilet", "seat": "chair", "tie": "tie"}
    pairs = {"hot dog": "hot dog", "hot dogs": "hot dog", "baby bear": "bear", "bow tie": "tie"}
    pairs |= {"baby bears": "bear", "toilet seat": "toilet"}
    wrong = total = sentences = 0
    for caption, true in zip(captions, truth, strict=True):
        text = " ".join(caption)
        for pair, name in pairs.items():
            text = " ".join(text.replace(pair, f"<{name.replace(' ', '_')}>").split())
        found = [
            word.strip("<>s").replace("_", " ") if word.startswith("<") else names.get(word)
            for word in text.split()
        ]
        found = [name for name in found if name and not (name == "chair" and "toilet" in found)]
        bad = sum(name not in true for name in found)
        wrong, total, sentences = wrong + bad, total + len(found), sentences + (bad > 0)
    got = chair(captions, truth, VOCABULARY)
    assert got.measures["chair_i"].value == pytest.approx(wrong / total)
    assert got.measures["chair_s"].value == pytest.approx(sentences / len(captions))
    turned = chair(captions[::-1], truth[::-1], VOCABULARY)
    for name, measure in got.measures.items():
        assert turned.measures[name].value == pytest.approx(measure.value)
        assert turned.measures[name].per_image[::-1].tolist() == pytest.approx(
            measure.per_image.tolist(), nan_ok=True
        )


@settings(deadline=None)
@given(CAPTIONS, st.data())
def test_one_more_true_mention_never_raises_chair_nor_lowers_recall(captions, data):
    truth = [data.draw(TRUTH) | {"glasses"} for _ in captions]
    captions[0] = [*captions[0], "glasses"]
    before = chair(captions, truth, VOCABULARY).measures
    after = chair([[*captions[0], "sunglasses"], *captions[1:]], truth, VOCABULARY).measures
    for name, sign in (("chair_i", 1), ("chair_s", 1), ("object_recall", -1)):
        assert sign * after[name].value <= sign * before[name].value
        assert 0 <= before[name].value <= 1


def test_files(tmp_path):
    for name, content in (("o", OBJECTS), ("r", RULES), ("a", {"7": ["dog"]})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    loaded = ObjectVocabulary.load(tmp_path / "o.json", tmp_path / "r.json")
    caption = tokenize("a baby bear on a toilet seat")
    assert loaded.mentions(caption) == VOCABULARY.mentions(caption)
    plain = ObjectVocabulary.load(tmp_path / "o.json")
    assert [m.object for m in plain.mentions(caption)] == ["person", "bear", "toilet", "chair"]
    assert load_annotations(tmp_path / "a.json") == {"7": ["dog"]}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("rules", {"compound": {}}, "'compound'.*'compounds' and 'unless'"),
        ("rules", {"unless": ["seat"]}, "'unless' of .* is no JSON object"),
        ("rules", {"compounds": {"baby bear": "cub"}}, "'cub' is no object or synonym"),
        ("rules", ["seat"], "holds a list"),
        ("annotations", {"7": "dog"}, "image '7' of .* no list of names"),
    ],
)
def test_mistakes_in_files_are_named(tmp_path, file, content, message):
    objects, other = tmp_path / "objects.json", tmp_path / f"{file}.json"
    objects.write_text(json.dumps(OBJECTS))
    other.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        ObjectVocabulary.load(objects, other) if file == "rules" else load_annotations(other)


REFERENCES = References.from_captions({1: ["a dog"]})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ObjectVocabulary({}), "vocabulary is empty"),
        (lambda: ObjectVocabulary({"dog": "puppy"}), "synonyms of 'dog' are a str"),
        (lambda: ObjectVocabulary({"dog": ["..."]}), "'...' .* has no word"),
        (lambda: ObjectVocabulary({"dog": ["pet"], "cat": ["pet"]}), "names both 'dog' and 'cat'"),
        (lambda: ObjectVocabulary.load("missing.json"), "missing.json"),
        (lambda: true_objects(REFERENCES, VOCABULARY, {}), "image 1 has no annotated objects"),
        (lambda: true_objects(REFERENCES, VOCABULARY, {1: ["cat"]}), "'cat' is no object"),
        (lambda: chair([["dog"]], [], VOCABULARY), "1 captions but objects of 0 images"),
        (lambda: chair([["dog"]], [{"puppy"}], VOCABULARY), "'puppy' is none of"),
        (lambda: chair([["grass"]], [{"dog"}], VOCABULARY), "no caption mentions"),
        (lambda: chair([["dog"]], [set()], VOCABULARY), "no image shows"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
