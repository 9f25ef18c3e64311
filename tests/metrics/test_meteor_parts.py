"""METEOR's stemmer, normaliser and paraphrase table; expected words are the original's."""

import gzip

import meteor_data
import numpy as np
import pytest

from capjax.errors import UserError
from capjax.metrics import meteor_files
from capjax.metrics.meteor import normaliser, paraphrases, ragged
from capjax.metrics.meteor.stemmer import stem

STEMS = {
    **{"dogs": "dog", "running": "run", "hopping": "hop", "hoping": "hope", "flies": "fli"},
    **{"ties": "tie", "dying": "die", "gas": "gas", "this": "this", "kiwis": "kiwi"},
    **{"evening": "even", "apologists": "apologist", "generously": "generous"},
    **{"communication": "communic", "arsenal": "arsenal", "sayings": "say", "cry": "cri"},
    **{"by": "by", "say": "say", "youth": "youth", "enjoyed": "enjoy", "skis": "ski"},
    **{"proceeded": "proceed", "exceed": "exceed", "inning": "inning", "bed": "bed"},
    **{"agreed": "agre", "feed": "feed", "luxuriate": "luxuri", "digitizer": "digit"},
    **{"radically": "radic", "hopefulness": "hope", "geology": "geolog", "quickly": "quick"},
    **{"relativity": "relat", "formative": "format", "adjustable": "adjust"},
    **{"adoption": "adopt", "controlling": "control", "rate": "rate", "cease": "ceas"},
    **{"dog's": "dog", "'twas": "twas", "s'": "s'", "é": "é", "naïvely": "naïv", "": ""},
}
NORMALISED = {
    "a man 's t-shirt": "a man ' s t shirt",
    "rock-n-roll": "rock n-roll",
    "don't": "don 't",
    "a'b'c": "a 'b'c",
    "the dogs' '90s": "the dogs ' ' 90s",
    "1990's 1'2": "1990 's 1 ' 2",
    "3.5 1,000 1, 2": "3.5 1,000 1 , 2",
    "the end. a": "the end. a",
    "the end. 5": "the end . 5",
    "no. 5 no. v. 5": "no . 5 no. v. 5",
    "u.s. army": "us army",
    "wait ... what": "wait ... what",
    "“hi” ‘x’ `` '' `": '" hi " \' x \' " " \'',
    "a – b--c": "a - b c",
    "50% #1 $5 &": "50 % # 1 $ 5 &",
    "日本 é😀 привет": "日 本 é 😀 привет",
    "1\u00a01/2 cup": "1 1 / 2 cup",
    "-lrb- x_y": "-lrb- x _ y",
    "": "",
}


@pytest.mark.parametrize(("word", "expected"), STEMS.items())
def test_stems(word, expected):
    assert stem(word) == expected


@meteor_data.needed
@pytest.mark.parametrize(("caption", "expected"), NORMALISED.items())
def test_normalised_words(caption, expected):
    assert " ".join(normaliser.normalise_line(caption)) == expected


@meteor_data.needed
def test_words_remembered_alone_are_those_in_the_caption():
    for caption in NORMALISED:
        for text in (caption, f"a' {caption} 'b", f"., {caption} ,. x"):
            tokens = text.split(" ") if text else []
            expected = normaliser.normalise_line(text)
            assert normaliser.normalise(tokens) == expected
            assert normaliser.normalise(tokens) == expected  # from memory


def test_ranges_and_pairs():
    owner, number = ragged.expand(np.array([5, 0, 7]), np.array([2, 0, 3]))
    assert owner.tolist() == [0, 0, 2, 2, 2]
    assert number.tolist() == [5, 6, 7, 8, 9]
    assert ragged.starts(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]
    one, other = ragged.pairs_within(np.array([4, 1, 4, 4, 2]))
    expected = {(0, 2), (0, 3), (2, 0), (2, 3), (3, 0), (3, 2)}
    assert set(zip(one.tolist(), other.tolist(), strict=True)) == expected
    assert len(one) == len(expected)


TABLE = """0.1
in front of
before
0.2
big
a very large
0.3
in front of
ahead of
0.4
big
large
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "paraphrase-en.gz"
    path.write_bytes(gzip.compress(TABLE.encode()))
    return path


def phrases_of(table: paraphrases.Paraphrases) -> dict[int, str]:
    """Every node's phrase, by walking down the tree."""
    words = bytes(table.words).decode().split("\n")
    phrases = {0: ""}
    for level in range(1, paraphrases.LONGEST + 1):
        for node in range(*table.level_start[level - 1 : level + 1]):
            parent, word = divmod(int(table.keys[node - 1]), len(words))
            phrases[node] = f"{phrases[parent]} {words[word]}".strip()
    return phrases


def test_the_table_holds_the_pairs_in_the_order_of_the_file(source):
    table = paraphrases.build(source)
    phrases = phrases_of(table)
    got = {
        phrases[int(node)]: [phrases[int(n)] for n in table.targets[table.first[i] : stop]]
        for i, (node, stop) in enumerate(zip(table.sources, table.first[1:], strict=True))
    }
    assert got == {"in front of": ["before", "ahead of"], "big": ["a very large", "large"]}


def test_look_ups(source):
    table = paraphrases.build(source)
    numbers = {word: n for n, word in enumerate(bytes(table.words).decode().split("\n"))}
    phrases = phrases_of(table)
    nodes = np.zeros(3, np.int64)
    for level, words in enumerate([("in", "in", "zebra"), ("front", "big", "big")], start=1):
        spelled = np.array([numbers.get(word, -1) for word in words])
        nodes = table.children(nodes, spelled, level)
        if level == 1:
            assert [phrases.get(int(node)) for node in nodes] == ["in", "in", None]
    assert [phrases.get(int(node)) for node in nodes[:2]] == ["in front", None]
    assert table.children(nodes[:1], np.array([0]), paraphrases.LONGEST).tolist() == [-1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-20],
        lambda data: b"no gzip at all",
        lambda data: gzip.compress(b"0.1\nbig\n"),
        lambda data: gzip.compress(b""),
        lambda data: gzip.compress(b"0.1\na b c d e f g h\nx\n"),
        lambda data: gzip.compress(b"0.1\n" + b"a " * 999 + b"\nx\n"),
        lambda data: data[:30] + b"\xff\xff" + data[32:],
    ],
)
def test_a_damaged_table_is_named(source, damage):
    source.write_bytes(damage(source.read_bytes()))
    with pytest.raises(UserError, match=r"paraphrase-en\.gz is damaged"):
        paraphrases.build(source)


def test_the_table_is_cached(source, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    source.rename(tmp_path / meteor_files.PARAPHRASES)
    (tmp_path / meteor_files.JAR).write_bytes(b"")
    monkeypatch.setenv(meteor_files.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load = paraphrases.load.__wrapped__

    made = load()
    assert "paraphrase table" in capsys.readouterr().err
    again = load()
    assert capsys.readouterr().err == ""
    for one, other in zip(made, again, strict=True):
        assert isinstance(other, np.memmap)
        np.testing.assert_array_equal(one, other)

    (folder,) = (tmp_path / "cache" / "capjax").iterdir()
    keys = folder / "keys.npy"
    keys.write_bytes(keys.read_bytes()[:-9])  # as if the disk had been full
    np.testing.assert_array_equal(load().keys, made.keys)
    assert "paraphrase table" in capsys.readouterr().err
    assert isinstance(load().keys, np.memmap)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_cache_that_cannot_be_written_costs_only_time(source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    table = paraphrases.build(source)
    paraphrases._write(table, paraphrases._cache_folder() / "table")
    assert paraphrases._read(paraphrases._cache_folder() / "table") is None
