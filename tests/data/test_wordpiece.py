"""BERT's tokenizer: the ids of Hugging Face's, rows, training, refusals."""

import hashlib
import json
import pathlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import awkward_texts
import numpy as np
import pytest

from capjax.data import wordpiece
from capjax.data.token_rows import CaptionTooLong
from capjax.errors import UserError

pytest.importorskip("tokenizers", reason="needs the extra text: pip install ftfy regex tokenizers")

ORIGINAL = json.loads((pathlib.Path(__file__).parent / "wordpiece_original.json").read_text())
VOCABULARY = ORIGINAL["vocabulary"].replace(" ", "\n").encode()
SMALL = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\ncat\n##s\n,\nrun\n##ning\n[MASK]\n"
COLOURS = ("red", "green", "blue", "yellow", "purple")
CAPTIONS = [f"A {a} circle is left of a {b} square." for a in COLOURS for b in COLOURS]


@pytest.fixture(scope="module")
def small():
    return wordpiece.Tokenizer(SMALL, 10)


def test_a_row_by_hand(small):
    row = small.encode("The C\u00e1ts, running fast")
    assert row.tolist() == [2, 4, 5, 6, 7, 8, 9, 1, 3, 0]
    assert row.dtype == np.int32
    assert small.decode(row) == "the cats, running [UNK]"
    special = small.special_tokens
    assert (special.pad, special.bos, special.eos) == (0, 2, 3)
    assert special.never_written == (0, 1, 2, 10)
    assert small.vocab_size == 11


def test_case_and_accents_are_kept_if_asked():
    cased = wordpiece.Tokenizer(SMALL, 10, lowercase=False)
    assert cased.ids("The cats c\u00e1ts") == [1, 5, 6, 1]
    assert cased.fingerprint != wordpiece.Tokenizer(SMALL, 10).fingerprint


def test_rows_may_begin_and_end_otherwise():
    """As BLIP's: [DEC] and [ENC] follow BERT's vocabulary, and [DEC] begins."""
    fields = dict(max_length=10, bos="[DEC]", extra_tokens=["[DEC]", "[ENC]"])
    tokenizer = wordpiece.make(None, path=SMALL, **fields)
    assert tokenizer.vocab_size == 13
    row = tokenizer.encode("The cats [ENC]")
    assert row.tolist() == [11, 4, 5, 6, 12, 3, 0, 0, 0, 0]
    assert tokenizer.decode(row) == "the cats [ENC]"
    special = tokenizer.special_tokens
    assert (special.pad, special.bos, special.eos) == (0, 11, 3)
    assert special.never_written == (0, 1, 2, 10, 11, 12)
    for copy in (wordpiece.reopen(SMALL, **fields), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.fingerprint == tokenizer.fingerprint != wordpiece.Tokenizer(SMALL).fingerprint
        assert copy.special_tokens == special
        assert copy.encode("The cats [ENC]").tolist() == row.tolist()
    # A file that has them already gives them their lines.
    listed = wordpiece.make(None, path=SMALL + b"[DEC]\n", **fields)
    assert listed.special_tokens.bos == 11
    assert listed.vocab_size == 13


def test_a_vocabulary_in_a_tokenizer_json(small, tmp_path):
    """Its added tokens count as lines; those that are in the vocabulary, too, stand there."""
    words = SMALL.decode().split()
    added = [{"id": 0, "content": "[PAD]"}, {"id": 11, "content": "[DEC]"}]
    document = {"added_tokens": added, "model": {"type": "WordPiece"}}
    document["model"]["vocab"] = {word: number for number, word in enumerate(words)}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document, indent=2))
    tokenizer = wordpiece.make(None, path=str(path), max_length=10)
    assert tokenizer.model == SMALL + b"[DEC]"
    assert tokenizer.encode("The cats").tolist() == small.encode("The cats").tolist()
    added[1]["id"] = 12
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="of the kind WordPiece, and not WordPiece with ids from 0"):
        wordpiece.make(None, path=str(path))
    for broken in ('{"model": {"type": "Unigram"}}', '{"model": null}', '{"model"'):
        path.write_text(broken)
        with pytest.raises(UserError, match=r"tokenizer\.json holds no vocabulary of BERT's kind"):
            wordpiece.make(None, path=str(path))


def test_rows_end_with_the_token_that_is_named():
    tokenizer = wordpiece.Tokenizer(SMALL, 6, eos="[MASK]")
    assert tokenizer.encode("the cat").tolist() == [2, 4, 5, 10, 0, 0]
    assert tokenizer.special_tokens.never_written == (0, 1, 2, 3)


@pytest.mark.parametrize("lowercase", [True, False])
def test_texts_have_the_originals_ids(lowercase):
    tokenizer = wordpiece.Tokenizer(VOCABULARY, 16, lowercase)
    for text, *ids in ORIGINAL["cases"]:
        assert tokenizer.ids(text) == ids[0 if lowercase else 1], text
    assert [case[0] for case in ORIGINAL["cases"]] == list(awkward_texts.CASES)
    digests = {kind: hashlib.sha256() for kind in awkward_texts.KINDS}
    for kind, text in awkward_texts.generate():
        digests[kind].update((" ".join(map(str, tokenizer.ids(text))) + "\n").encode())
    got = {kind: digest.hexdigest() for kind, digest in digests.items()}
    assert got == ORIGINAL["generated"]["lowercase" if lowercase else "cased"]


def test_training_finds_the_words_and_gives_the_captions_back():
    tokenizer = wordpiece.train(CAPTIONS, vocab_size=120, max_length=16)
    assert tokenizer.vocab_size <= 120
    pieces = tokenizer.model.decode().split("\n")
    assert pieces[:5] == list(wordpiece.SPECIALS)
    assert {"circle", "square", *COLOURS} <= set(pieces)
    for caption in CAPTIONS:
        assert tokenizer.decode(tokenizer.encode(caption)) == caption.lower()
    assert tokenizer.ids("a red circle")[-1] == pieces.index("circle")


def test_training_gives_the_same_vocabulary_in_every_process():
    code = (
        "from capjax.data import wordpiece\n"
        "words = 'abcdefghij klmnopqrstuv bcdaef hgfedc lkjihg'\n"
        "print(wordpiece.train([words, words[::-1]], 90, 16).fingerprint)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            for _ in range(3)]  # fmt: skip
    assert len({run.stdout for run in runs}) == 1
    assert len(runs[0].stdout.strip()) == 64


def test_make_trains_or_reads(tmp_path):
    asked = []

    def captions(count):
        asked.append(count)
        return CAPTIONS

    trained = wordpiece.make(captions, vocab_size=100, max_length=16, num_records=7)
    assert asked == [7]
    trained.save(tmp_path / "vocab.txt")
    for copy in (
        wordpiece.make(captions, path=str(tmp_path / "vocab.txt"), max_length=16),
        wordpiece.reopen(trained.model, vocab_size=100, max_length=16, num_records=7),
        pickle.loads(pickle.dumps(trained)),
    ):
        assert copy.fingerprint == trained.fingerprint
        np.testing.assert_array_equal(copy.encode(CAPTIONS[3]), trained.encode(CAPTIONS[3]))
    assert asked == [7]


def test_line_ends_of_windows_are_no_part_of_pieces():
    other = wordpiece.Tokenizer(SMALL.replace(b"\n", b"\r\n"), 10)
    assert other.ids("the cats") == [4, 5, 6]


def test_too_long_is_refused_by_name_or_cut(small):
    with pytest.raises(CaptionTooLong, match=r"'cat cat .*' has 9 tokens .*leaves room for 8"):
        small.encode("cat " * 9)
    assert small.encode("cat " * 9, truncate=True).tolist() == [2, *[5] * 8, 3]


@pytest.mark.parametrize("caption", ["", " \t", "\u200d\x00"])
def test_what_is_left_without_a_piece_is_refused(small, caption):
    with pytest.raises(UserError, match="the caption is empty"):
        small.encode(caption)


def test_half_a_surrogate_pair_is_an_unknown_sign(small):
    assert small.ids("cat \ud83d") == [5, 1]


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"lacks \[UNK\], \[SEP\]"):
        wordpiece.Tokenizer(b"[PAD]\n[CLS]\ncat\n")
    with pytest.raises(UserError, match=r"'cat' twice, in the lines 5 and 7"):
        wordpiece.Tokenizer(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\ncat\ndog\ncat\n")
    with pytest.raises(UserError, match=r"bos='\[DEC\]' is not in the vocabulary: .*extra_tokens"):
        wordpiece.Tokenizer(SMALL, bos="[DEC]")
    with pytest.raises(UserError, match="not UTF-8"):
        wordpiece.Tokenizer(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        wordpiece.Tokenizer("no/vocab.txt")
    with pytest.raises(UserError, match=r"vocab_size=20 .*their characters alone need \d+"):
        wordpiece.train(CAPTIONS, 20, 16)
    with pytest.raises(UserError, match="there are no captions"):
        wordpiece.train(["", " "], 200, 16)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"package tokenizers: pip install"):
        wordpiece.Tokenizer(SMALL)


def test_threads_share_one():
    tokenizer = wordpiece.Tokenizer(VOCABULARY, 16)
    texts = [text for _, text in awkward_texts.generate()[:1000]]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tokenizer.ids, texts)) == [tokenizer.ids(text) for text in texts]
