"""WordNet look-ups. Expected synsets are what METEOR 1.5's own SynonymDictionary returned."""

import zipfile

import meteor_data
import pytest

from capjax.errors import UserError
from capjax.metrics import meteor_files, wordnet

SMALL = wordnet.WordNet(
    lemmas={
        "dog": "02084071 10114209",
        "run": "00189565",
        "woman": "10787470",
        "fly": "01940403 02190166",
        "city": "08524735",
        "bake": "00319886",
        "box": "02883344",
        "glass": "04438897",
        "good": "01123148",
        "well": "00011093",
        "us": "09044862",
    },
    exceptions={"ran": ["run"], "better": ["good", "well", "well"]},
)


@pytest.mark.parametrize(
    ("word", "lemmas"),
    [
        ("dogs", ("dog",)),
        ("dog", ()),  # no ending to detach
        ("women", ("woman",)),
        ("flies", ("fly",)),
        ("baking", ("bake",)),
        ("baker", ("bake",)),
        ("boxes", ("box",)),
        ("glass", ("glass",)),  # not "glas": the ending -ss is left alone
        ("us", ("us",)),  # too short
        ("zzz", ()),
        ("ran", ("run",)),
        ("better", ("good", "well")),
        ("", ()),
    ],
)
def test_base_forms(word, lemmas):
    assert SMALL.base_forms(word) == lemmas


def test_synsets_are_those_of_the_word_and_of_its_base_forms():
    assert SMALL.synsets("dog") == SMALL.synsets("dogs") == {2084071, 10114209}
    assert SMALL.synsets("better") == {1123148, 11093}
    assert SMALL.synsets("zzz") == frozenset()
    assert "dog" in SMALL
    assert "dogs" not in SMALL


@meteor_data.needed
@pytest.mark.parametrize(
    ("word", "synsets"),
    [
        ("bicycle", {1935476, 2834778}),
        ("bike", {1935476, 2834778, 3790512}),
        ("bikes", {1935476, 2834778, 3790512}),
        ("pooch", {146023, 2084732}),
        ("oxen", {2402175, 2402425, 2403003}),
        ("qwertyish", set()),
    ],
)
def test_the_published_files(word, synsets):
    assert wordnet.load().synsets(word) == synsets


@meteor_data.needed
def test_it_is_read_once():
    assert wordnet.load() is wordnet.load()


def test_damaged_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv(meteor_files.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match=r"meteor-1\.5\.jar is missing"):
        meteor_files.member("synonym/english.synsets")
    (tmp_path / "data").mkdir()
    (tmp_path / meteor_files.PARAPHRASES).write_bytes(b"")
    jar = tmp_path / meteor_files.JAR
    jar.write_bytes(b"PK not a zip")
    with pytest.raises(UserError, match="is damaged"):
        meteor_files.member("synonym/english.synsets")
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("synonym/english.synsets", "dog\n02084071\ncat\n")
    with pytest.raises(UserError, match="is damaged"):
        meteor_files.member("function/english.words")
    with pytest.raises(UserError, match="ends amid a record"):
        wordnet.load.__wrapped__()


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.delenv(meteor_files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="run pip install pycocoevalcap"):
        meteor_files.folder()
