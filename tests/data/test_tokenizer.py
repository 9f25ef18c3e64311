"""The tokenizer: rows, their reversal, determinism, and what it refuses."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capjax.data import tokenizer as tokenizer_lib
from capjax.data.tokenizer import CaptionTooLong, Tokenizer
from capjax.errors import UserError
from capjax.special_tokens import BOS_ID, EOS_ID, PAD_ID

COLOURS = ("red", "green", "blue", "yellow", "purple")
CAPTIONS = [f"A {a} circle is left of a {b} square." for a in COLOURS for b in COLOURS]


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_lib.train(CAPTIONS, vocab_size=80, max_length=24)


def test_a_row_is_bos_pieces_eos_padding(tokenizer):
    row = tokenizer.encode("a red circle")
    assert row.dtype == np.int32
    assert row.shape == (24,)
    end = row.tolist().index(EOS_ID)
    assert row[0] == BOS_ID
    assert (row[1:end] > EOS_ID).all()
    assert (row[end + 1 :] == PAD_ID).all()
    batch = tokenizer.encode_batch(["a red circle", "a blue square."])
    assert batch.shape == (2, 24)
    np.testing.assert_array_equal(batch[0], row)
    assert tokenizer.encode_batch([]).shape == (0, 24)


@given(
    st.lists(st.sampled_from([*COLOURS, "a", "circle", "square", "left"]), min_size=1, max_size=8)
)
def test_decoding_gives_the_caption_back(tokenizer, words):
    caption = " ".join(words)
    assert tokenizer.decode(tokenizer.encode(caption, truncate=True)[:30]).startswith(words[0])
    try:
        row = tokenizer.encode(caption)
    except CaptionTooLong:
        return
    assert tokenizer.decode(row) == caption


def test_decoding_stops_at_the_first_end(tokenizer):
    row = tokenizer.encode("a red circle").tolist()
    end = row.index(EOS_ID)
    assert tokenizer.decode(row[: end + 1] + row[1:]) == "a red circle"
    assert tokenizer.decode(row[1:end]) == "a red circle"
    assert tokenizer.decode([]) == ""


def test_case_is_folded_as_asked(tokenizer):
    np.testing.assert_array_equal(
        tokenizer.encode("A RED circle"), tokenizer.encode("a red circle")
    )
    cased = tokenizer_lib.train(CAPTIONS, 80, 24, lowercase=False)
    assert cased.decode(cased.encode("A red circle")) == "A red circle"


def test_the_same_captions_give_the_same_bytes(tokenizer):
    again = tokenizer_lib.train(iter(CAPTIONS), vocab_size=80, max_length=24)
    assert again.model == tokenizer.model
    assert again.fingerprint == tokenizer.fingerprint
    other = tokenizer_lib.train(CAPTIONS[:5], vocab_size=80, max_length=24)
    assert other.fingerprint != tokenizer.fingerprint


def test_it_survives_files_and_pickling(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.model")
    for copy in (
        Tokenizer(tmp_path / "tokenizer.model", 24),
        Tokenizer(tokenizer.model, 24),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.vocab_size == tokenizer.vocab_size
        np.testing.assert_array_equal(copy.encode(CAPTIONS[0]), tokenizer.encode(CAPTIONS[0]))


def test_tiny_sets_have_small_vocabularies(tmp_path):
    tiny = tokenizer_lib.train(["a cat"], 4096, 8, path=tmp_path / "t.model")
    assert tiny.vocab_size < 20
    assert tiny.decode(tiny.encode("a cat")) == "a cat"
    assert (tmp_path / "t.model").read_bytes() == tiny.model


def test_training_is_silent(capfd):
    tokenizer_lib.train(CAPTIONS, 80, 24)
    assert capfd.readouterr() == ("", "")


def test_a_long_caption_is_refused_or_cut(tokenizer):
    caption = "red blue " * 30
    with pytest.raises(CaptionTooLong, match="max_length=24 leaves room for 22"):
        tokenizer.encode(caption)
    row = tokenizer.encode(caption, truncate=True)
    assert row[-1] == EOS_ID
    assert (row != PAD_ID).all()
    assert caption.startswith(tokenizer.decode(row)[:10])


@pytest.mark.parametrize("caption", ["", "   ", "\n"])
def test_an_empty_caption_is_refused(tokenizer, caption):
    with pytest.raises(UserError, match="the caption is empty"):
        tokenizer.encode(caption)


@pytest.mark.parametrize("caption", [None, 3, b"red", ["red"]])
def test_what_is_no_text_is_refused(tokenizer, caption):
    with pytest.raises(UserError, match="a caption must be text"):
        tokenizer.encode(caption)
    with pytest.raises(UserError, match="a caption must be text"):
        tokenizer_lib.train(["red", caption], 80, 24)


def test_mistakes_in_training_are_named(tmp_path):
    with pytest.raises(UserError, match="there are no captions"):
        tokenizer_lib.train([], 80, 24)
    with pytest.raises(UserError, match="there are no captions"):
        tokenizer_lib.train(["", "  "], 80, 24)
    with pytest.raises(UserError, match=r"vocab_size=5 .*Vocabulary size is smaller"):
        tokenizer_lib.train(CAPTIONS, 5, 24)
    with pytest.raises(UserError, match="max_length=2 leaves no room"):
        tokenizer_lib.train(CAPTIONS, 80, 2)
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*none.model"):
        Tokenizer(tmp_path / "none.model", 24)
    with pytest.raises(UserError, match="not a SentencePiece model"):
        Tokenizer(b"something else", 24)


def test_an_id_of_another_tokenizer_is_refused(tokenizer):
    with pytest.raises(UserError, match="token id 999 is outside the vocabulary"):
        tokenizer.decode([BOS_ID, 999])
