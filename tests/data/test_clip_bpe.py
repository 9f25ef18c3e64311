"""CLIP's tokenizer: the original's ids on real and awkward text, rows, threads, refusals."""

import gzip
import hashlib
import html
import json
import pathlib
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import awkward_texts
import numpy as np
import pytest

from capjax.data import clip_bpe, text_cleaning
from capjax.data.token_rows import CaptionTooLong
from capjax.errors import UserError

ftfy = pytest.importorskip("ftfy", reason="needs the extra text: pip install ftfy regex tokenizers")
pytest.importorskip("regex", reason="needs the extra text: pip install ftfy regex tokenizers")

ORIGINAL = json.loads((pathlib.Path(__file__).parent / "clip_bpe_original.json").read_text())
SOT, EOT = 49406, 49407

# t+h, th+e</w>, c+a, ca+t</w>, 1+2</w> (never used: digits stand alone): ids 512 to 516.
MERGES = b"#version: 0.2\nt h\nth e</w>\nc a\nca t</w>\n1 2</w>\n"


@pytest.fixture(scope="module")
def small():
    return clip_bpe.Tokenizer(MERGES, 12, num_merges=5)


@pytest.fixture(scope="module")
def merges_file(shared):
    return shared / "data" / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"


@pytest.fixture(scope="module")
def clip(merges_file):
    return clip_bpe.make(path=str(merges_file))


def digest(lists):
    lines = (" ".join(map(str, ids)) + "\n" for ids in lists)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_row_by_hand(small):
    a, t = ord("a") - 33, ord("t") - 33  # "!", 33, is byte id 0
    assert small.vocab_size == 512 + 5 + 2
    row = small.encode("The cat, that 12!")
    comma, bang = 256 + ord(",") - 33, 256
    one, two = 256 + ord("1") - 33, 256 + ord("2") - 33
    assert row.tolist() == [517, 513, 515, comma, 512, a, 256 + t, one, two, bang, 518, 0]
    assert row.dtype == np.int32
    assert small.decode(row) == "the cat , that 1 2 !"
    special = small.special_tokens
    assert (special.pad, special.bos, special.eos) == (0, 517, 518)
    assert special.never_written == (517,)  # 0 pads, but is also the start of "!!"


def test_the_first_merge_in_the_list_wins_and_is_applied_everywhere(small):
    assert small.ids("ththe") == [512, 513]
    assert small.ids("catcat") == [514, ord("t") - 33, 515]
    aaa = clip_bpe.Tokenizer(b"#version\na a\naa a</w>\n", 12, num_merges=2)
    assert aaa.ids("aaaa") == [512, ord("a") - 33, 256 + ord("a") - 33]


def test_padding_that_is_a_word_survives_decoding(small):
    row = small.encode("!! cat")
    assert row.tolist()[:5] == [517, 0, 256, 515, 518]
    assert small.decode(row) == "!! cat"
    np.testing.assert_array_equal(small.special_tokens.until_end(row), [True] * 5 + [False] * 7)


@pytest.mark.parametrize(
    ("clean", "text", "expected"),
    [
        ("lower", "A_b\t &amp;amp;#39;  CAFE! \u2018X\u2019 ", "a_b ' cafe! 'x'"),
        ("lower", "\u00e2\u20ac\u0153Caf\u00c3\u00a9\u00e2\u20ac\x9d", '"caf\u00e9"'),
        ("whitespace", " A_B,\n C\u00a0d ", "A_B, C d"),
        ("canonicalize", "A_B:  the Cat's 'toy'.", "a b the cats toy"),
    ],
)
def test_cleanings(clean, text, expected):
    assert text_cleaning.by_name(clean)(text) == expected


def test_what_is_passed_by_needs_no_repair():
    texts = [text for _, text in awkward_texts.generate() if text.isascii() and "&" not in text]
    texts = [text for text in texts if text.isprintable()]
    assert len(texts) > 3000
    for text in texts:
        assert html.unescape(ftfy.fix_text(text)).strip() == text_cleaning.repair(text)


def test_too_long_is_refused_by_name_or_cut(small):
    with pytest.raises(CaptionTooLong, match=r"'cat cat .*' has 11 tokens .*max_length=12 leaves"):
        small.encode("cat " * 11)
    row = small.encode("cat " * 11, truncate=True)
    assert row.tolist() == [517, *[515] * 10, 518]
    np.testing.assert_array_equal(small.encode("cat " * 10), row)


@pytest.mark.parametrize("caption", ["", " ", "\x00\x01"])
def test_what_is_left_without_a_word_is_refused(small, caption):
    with pytest.raises(UserError, match="the caption is empty"):
        small.encode(caption)
    assert small.row([]).tolist() == [517, 518, *[0] * 10]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match=r"has 5 of them and tokenizer\.num_merges=48894"):
        clip_bpe.Tokenizer(MERGES)
    with pytest.raises(UserError, match="does not begin with a line #version"):
        clip_bpe.Tokenizer(b"t h\n", num_merges=1)
    with pytest.raises(UserError, match=r"merge number 1 .*'x yz', does not join two known"):
        clip_bpe.Tokenizer(b"#version\nt h\nx yz\n", num_merges=2)
    with pytest.raises(UserError, match=r"merge number 1 .*is there twice"):
        clip_bpe.Tokenizer(b"#version\nt h\nt h\n", num_merges=2)
    with pytest.raises(UserError, match="damaged"):
        clip_bpe.Tokenizer(gzip.compress(MERGES)[:-12], num_merges=5)
    with pytest.raises(UserError, match=r"tokenizer.clean must be one of lower, .* not 'Lower'"):
        clip_bpe.Tokenizer(MERGES, clean="Lower", num_merges=5)
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*none.gz"):
        clip_bpe.make(path=str(tmp_path / "none.gz"))
    with pytest.raises(UserError, match="max_length=2 leaves no room"):
        clip_bpe.Tokenizer(MERGES, 2, num_merges=5)


def test_without_ftfy_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(UserError, match=r"repairs texts with ftfy: pip install"):
        clip_bpe.Tokenizer(MERGES, num_merges=5)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "regex", None)
    with pytest.raises(UserError, match=r"with the package regex: pip install"):
        clip_bpe.Tokenizer(MERGES, num_merges=5)


def test_it_survives_files_and_pickling(small, tmp_path):
    packed = tmp_path / "merges.txt.gz"
    packed.write_bytes(gzip.compress(MERGES + b"d o\n"))  # files hold more than is used
    for copy in (
        clip_bpe.make(path=str(packed), max_length=12, num_merges=5),
        clip_bpe.reopen(small.model, path="gone", max_length=12, num_merges=5),
        pickle.loads(pickle.dumps(small)),
    ):
        assert copy.fingerprint == small.fingerprint
        np.testing.assert_array_equal(copy.encode("the cat"), small.encode("the cat"))
    other = clip_bpe.Tokenizer(MERGES, 12, "canonicalize", num_merges=5)
    assert other.fingerprint != small.fingerprint


def test_hello_world(clip):
    row = clip.encode("Hello World!")
    assert row.tolist() == [SOT, 3306, 1002, 256, EOT] + [0] * 72
    assert clip.vocab_size == 49408
    assert clip.decode(row) == "hello world !"


def test_chosen_texts_have_the_originals_ids(clip):
    for text, ids in ORIGINAL["cases"]:
        assert clip.ids(text) == ids, text
        row = clip.encode(text, truncate=True) if ids else clip.row([])
        assert row.tolist() == ([SOT, *ids[:75], EOT] + [0] * 77)[:77]
    assert [text for text, _ in ORIGINAL["cases"]] == list(awkward_texts.CASES)


def test_ten_thousand_texts_have_the_originals_ids(clip):
    by_kind = {kind: [] for kind in awkward_texts.KINDS}
    for kind, text in awkward_texts.generate():
        by_kind[kind].append(clip.ids(text))
    got = {kind: digest(lists) for kind, lists in by_kind.items()}
    assert got == ORIGINAL["generated"]


def test_real_captions_have_the_originals_ids_and_come_back(clip, shared):
    captions = []
    for name in ("captions_train", "captions_dev"):
        for line in (shared / "data" / "flickr8k" / f"{name}.jsonl").read_text().splitlines():
            captions += json.loads(line)["captions"]
    lists = [clip.ids(caption) for caption in captions]
    assert len(captions) == ORIGINAL["flickr8k"]["count"]
    assert digest(lists) == ORIGINAL["flickr8k"]["sha256"]
    for caption, ids in zip(captions, lists, strict=True):
        assert clip.text(ids).replace(" ", "") == "".join(caption.lower().split())


@pytest.mark.parametrize("pairs", [True, False])
def test_merges_in_a_tokenizer_json(small, pairs, tmp_path):
    """As newer versions of Transformers save it, alone: each merge as a pair, before as a text."""
    lines = MERGES.decode().split("\n")[1:-1]
    merges = [line.split() if pairs else line for line in lines]
    model = {"type": "BPE", "end_of_word_suffix": "</w>", "merges": merges}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0", "model": model}))
    assert clip_bpe.make(path=str(path), max_length=12, num_merges=5).fingerprint == (
        small.fingerprint
    )
    path.write_text(json.dumps({"model": model | {"end_of_word_suffix": ""}}))
    with pytest.raises(UserError, match="not CLIP's: it is of the kind BPE and ends words with ''"):
        clip_bpe.make(path=str(path), num_merges=5)
    for broken in ('{"model": {"type": "Unigram"}}', '{"model": null}', '{"model"'):
        path.write_text(broken)
        with pytest.raises(UserError, match=r"the tokenizer\.json holds no merges of CLIP's kind"):
            clip_bpe.make(path=str(path), num_merges=5)


def test_threads_share_one(clip, merges_file):
    texts = [text for _, text in awkward_texts.generate()[:2000]]
    expected = [clip.ids(text) for text in texts]
    fresh = clip_bpe.make(path=str(merges_file))  # no word is remembered yet
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fresh.ids, texts)) == expected


@pytest.mark.parametrize(
    ("clean", "ids"),
    [
        ("lower", [320, 1125, 318, 539, 281, 518, 2368, 568, 257, 5988, 4332, 15304, 256]),
        (
            "whitespace",
            [288, 1125, 318, 539, 281, 518, 34, 32, 307, 568, 257, 5988, 4332, 15304, 256],
        ),
        ("canonicalize", [320, 1125, 539, 518, 3989, 5988, 15304]),
    ],
)
def test_the_cleanings_of_openclip(merges_file, clean, ids):
    """Values of OpenCLIP 3.3: SimpleTokenizer(clean=...).encode."""
    text = "A photo_of: the  CAT's \u201ctoy\u201d, caf\u00e9!"
    assert clip_bpe.make(path=str(merges_file), clean=clean).ids(text) == ids
