"""GPT-2's tokenizer: its files, a BOS that is EOS, refusals. Ids: test_published_tokenizers."""

import json
import pickle

import numpy as np
import pytest

from capjax.data import gpt2_bpe
from capjax.errors import UserError

tokenizers = pytest.importorskip(
    "tokenizers", reason="needs the extra text: pip install ftfy regex tokenizers"
)

END = gpt2_bpe.END
SIGNS = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
VOCABULARY = {sign: number for number, sign in enumerate([*SIGNS, "\u0120a", "do", "dog", END])}
MERGES = "#version: 0.2\n\u0120 a\nd o\ndo g\n"
LAST = 259


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    (folder / "merges.txt").write_text(MERGES)
    return folder


@pytest.fixture(scope="module")
def small(folder):
    return gpt2_bpe.make(path=str(folder), max_length=8)


def test_a_row_by_hand(small):
    row = small.encode("dog a")
    assert row.tolist() == [LAST, 258, 256, *[LAST] * 5]
    assert row.dtype == np.int32
    special = small.special_tokens
    assert (special.bos, special.eos, special.pad, special.never_written) == (LAST, LAST, LAST, ())
    np.testing.assert_array_equal(special.to_write(row), [True] * 3 + [False] * 4)
    assert small.vocab_size == 260


def test_a_bos_that_is_eos_is_read_rightly_in_rows_and_in_what_is_written(small):
    row = small.encode("dog a")
    assert small.decode(row) == small.decode(row[1:]) == "dog a"
    empty = small.row([])
    assert small.decode(empty) == small.decode(empty[1:]) == small.decode([]) == ""
    assert small.decode([258, LAST, 258]) == "dog"
    assert small.decode([LAST, 258, LAST, 258]) == "dog"


def test_padding_of_its_own_is_an_extra_token(folder):
    padded = gpt2_bpe.make(path=str(folder), max_length=6, extra_tokens=("<pad>",), pad="<pad>")
    row = padded.encode("dog a")
    assert row.tolist() == [LAST, 258, 256, LAST, 260, 260]
    assert padded.special_tokens.never_written == (260,)
    assert padded.vocab_size == 261
    assert padded.decode(row) == padded.decode(row[1:]) == "dog a"
    assert padded.decode([LAST, 260, 260]) == ""  # nothing but an end was written


def test_all_files_give_the_same_bytes(small, folder, tmp_path):
    original = tmp_path / "original"
    original.mkdir()
    (original / "encoder.json").write_text(json.dumps(dict(reversed(VOCABULARY.items()))))
    (original / "vocab.bpe").write_text(MERGES.replace("\n", "\r\n"))
    document = json.loads(small.model)
    document["model"]["merges"] = [merge.split() for merge in document["model"]["merges"]]
    document["padding"] = dict(strategy={"Fixed": 9}, direction="Right", pad_to_multiple_of=None,
                               pad_id=0, pad_type_id=0, pad_token="!")  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    for path in (original, tmp_path, tmp_path / "tokenizer.json"):
        other = gpt2_bpe.make(path=str(path), max_length=8)
        assert other.fingerprint == small.fingerprint
    for copy in (
        gpt2_bpe.reopen(small.model, path="gone", max_length=8),
        pickle.loads(pickle.dumps(small)),
    ):
        assert copy.fingerprint == small.fingerprint
        np.testing.assert_array_equal(copy.encode("a dog"), small.encode("a dog"))


def test_the_published_vocabulary(shared):
    gpt2 = gpt2_bpe.make(path=str(shared / "data" / "gpt2_bpe"))
    assert gpt2.vocab_size == 50257
    assert gpt2.ids("Hello world") == [15496, 995]
    assert gpt2.special_tokens.start == 50256
    text = "Na\u00efve  caf\u00e9\n\U0001f389"
    assert gpt2.decode(gpt2.encode(text)) == text


def test_mistakes_are_named(folder, small, tmp_path):
    with pytest.raises(UserError, match=r"holds no tokenizer of GPT-2: it needs vocab.json"):
        gpt2_bpe.make(path=str(tmp_path))
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        gpt2_bpe.make(path=str(tmp_path / "gone"))

    def read(vocabulary, merges=MERGES):
        (tmp_path / "vocab.json").write_text(vocabulary)
        (tmp_path / "merges.txt").write_text(merges)
        return gpt2_bpe.make(path=str(tmp_path))

    with pytest.raises(UserError, match=r"vocab.json is not JSON"):
        read("{")
    with pytest.raises(UserError, match="holds no table of tokens"):
        read("[]")
    with pytest.raises(UserError, match="must number its tokens from 0 without a gap"):
        read(json.dumps({**VOCABULARY, "x y": 300}))
    with pytest.raises(UserError, match=r"lacks <\|endoftext\|>"):
        read(json.dumps({sign: number for number, sign in enumerate(SIGNS)}))
    with pytest.raises(UserError, match="merge number 3 of the tokenizer, 'a b', does not join"):
        read(json.dumps(VOCABULARY), MERGES + "a b\n")
    document = json.loads(small.model)
    document["pre_tokenizer"]["use_regex"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"is not GPT-2's: .* name capjax.data.tokenizer_json"):
        gpt2_bpe.make(path=str(tmp_path / "tokenizer.json"))


def test_tokens_that_a_tokenizer_json_adds_are_kept(folder, tmp_path):
    """As an exported run's, whose embedding has rows for them."""
    grown = gpt2_bpe.make(path=str(folder), extra_tokens=("<box>", "<end>"))
    path = tmp_path / "tokenizer.json"
    path.write_text(grown.to_json())
    again = gpt2_bpe.make(path=str(path))
    assert again.vocab_size == grown.vocab_size == 262
    assert again.ids("dog <end>a<box>") == grown.ids("dog <end>a<box>")
    assert 261 in again.ids("dog <end>")
    document = json.loads(path.read_text())
    document["added_tokens"][-1]["id"] = 300
    path.write_text(json.dumps(document))
    with pytest.raises(
        UserError, match=r"adds have the ids \[260, 300\], and must go on after .*260"
    ):
        gpt2_bpe.make(path=str(path))
