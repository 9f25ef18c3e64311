"""Tokenizer files of llama2.c: the ids of its plain rule, rows, refusals."""

import json
import pickle
import struct

import awkward_texts
import numpy as np
import pytest

from capjax.data import llama2c_tokenizer
from capjax.errors import UserError

FIRST = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % byte for byte in range(256))]
# Equal scores, and unions that overlap: which neighbours come first is to be seen in the ids.
PIECES = [(b" a", -1), (b"aa", -2), (b"aaa", -2), (b"ab", -2), (b"ba", -2), (b" ", -9), (b"a", -9),
          (b"b", -9), (b"\xc3\xa9", -9), (b" dog", -20), (b"do", -3), (b"g", -9), (b"d", -9),
          (b"o", -9), (b" do", -19)]  # fmt: skip


def file_of(tokens):
    return struct.pack("<i", 9) + b"".join(
        struct.pack("<fi", score, len(text)) + text for text, score in tokens
    )


SMALL = file_of([*((text, 0.0) for text in FIRST), *PIECES])


def plain_rule(tokens, text):
    """The rule of the module's docstring, word by word."""
    ids = {piece: number for number, (piece, _) in enumerate(tokens)}
    out = [ids[b" "]] if text else []
    for character in text:
        piece = character.encode()
        out += [ids[piece]] if piece in ids else [byte + 3 for byte in piece]
    while True:
        best = None
        for place in range(len(out) - 1):
            union = ids.get(tokens[out[place]][0] + tokens[out[place + 1]][0])
            if union is not None and (best is None or tokens[union][1] > tokens[best[1]][1]):
                best = place, union
        if best is None:
            return out
        out[best[0] : best[0] + 2] = [best[1]]


def tokens_of(data):
    tokens, position = [], 4
    while position < len(data):
        score, length = struct.unpack_from("<fi", data, position)
        tokens.append((data[position + 8 : position + 8 + length], score))
        position += 8 + length
    return tokens


@pytest.fixture(scope="module")
def small():
    return llama2c_tokenizer.reopen(llama2c_tokenizer.to_sentencepiece(SMALL), max_length=10)


def test_a_row_by_hand(small):
    row = small.encode("\u00e9 dog!")
    # The space in front; e acute; "do", " do" and " dog" one after the other; a byte.
    assert row.tolist() == [1, 264, 267, 268, 3 + ord("!"), *[2] * 5]
    assert small.decode(row) == "\u00e9 dog!"
    special = small.special_tokens
    assert (special.bos, special.eos, special.pad, special.never_written) == (1, 2, 2, (0, 1))
    assert small.vocab_size == 259 + len(PIECES)


def test_ties_and_overlaps_follow_the_rule(small):
    tokens = tokens_of(SMALL)
    draw = np.random.default_rng(0)
    for _ in range(500):
        text = "".join(draw.choice(list("aab dog\u00e9x"), draw.integers(0, 14)))
        assert small.ids(text) == plain_rule(tokens, text), text


def test_the_ids_of_real_captions_and_awkward_texts_follow_the_rule(shared):
    path = shared / "data" / "stories260k" / "tok512.bin"
    tokens = tokens_of(path.read_bytes())
    stories = llama2c_tokenizer.make(path=str(path))
    assert stories.vocab_size == len(tokens) == 512
    lines = (shared / "data" / "flickr8k" / "captions_dev.jsonl").read_text().splitlines()
    texts = [json.loads(line)["captions"][0] for line in lines[:150]]
    texts += [text for _, text in awkward_texts.generate()[:400] if len(text) < 80]
    for text in texts:
        text = text.encode("utf-8", "replace").decode()
        if "\u2581" not in text:
            assert stories.ids(text) == plain_rule(tokens, text), text
    for text in texts[:150]:
        assert stories.text(stories.ids(text)) == text


def test_the_sign_that_sentencepiece_writes_for_a_space_is_one(small):
    assert small.ids("a\u2581a") == small.ids("a a")


def test_bytes_that_are_no_text_are_shown_as_such(small):
    assert small.decode([1, 265, 3 + 0xC3, 265]) == "a\ufffda"


def test_it_survives_files_and_pickling(small, tmp_path):
    (tmp_path / "tok.bin").write_bytes(SMALL)
    for copy in (
        llama2c_tokenizer.make(path=str(tmp_path / "tok.bin"), max_length=10),
        llama2c_tokenizer.reopen(small.model, path="gone", max_length=10),
        pickle.loads(pickle.dumps(small)),
    ):
        assert copy.fingerprint == small.fingerprint
        np.testing.assert_array_equal(copy.encode("a dog"), small.encode("a dog"))


def test_mistakes_are_named(tmp_path):
    for broken in (b"", SMALL[:-1], SMALL[:7], SMALL[:400]):
        with pytest.raises(UserError, match=r"too short|cut short within a token"):
            llama2c_tokenizer.to_sentencepiece(broken)
    others = [*((text, 0.0) for text in reversed(FIRST)), *PIECES]
    with pytest.raises(UserError, match="does not begin with <unk>, <s>, </s> and the 256 bytes"):
        llama2c_tokenizer.to_sentencepiece(file_of(others))
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*gone"):
        llama2c_tokenizer.make(path=str(tmp_path / "gone"))
