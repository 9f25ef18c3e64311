"""A published tokenizer.json: rows, extra tokens, refusals. Its ids: test_published_tokenizers."""

import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_published_tokenizers import LLAMA3, MODELS

from capjax.data import tokenizer_json
from capjax.data.token_rows import CaptionTooLong
from capjax.errors import UserError

QWEN2 = MODELS["qwen2"]


@pytest.fixture(scope="module")
def llama3():
    return tokenizer_json.Tokenizer(MODELS["llama3"], 12, **LLAMA3)


def test_a_row_begins_with_bos_and_is_filled_with_eos(llama3):
    ids = llama3.ids("a red dog")
    row = llama3.encode("a red dog")
    assert row.tolist() == [700, *ids, *[701] * (11 - len(ids))]
    assert row.dtype == np.int32
    special = llama3.special_tokens
    assert (special.bos, special.eos, special.pad, special.never_written) == (
        700,
        701,
        701,
        (700, 702),
    )
    assert llama3.vocab_size == 703
    assert llama3.room == 10


def test_without_bos_a_row_begins_with_its_first_word():
    qwen2 = tokenizer_json.Tokenizer(QWEN2, 8, eos="<|im_end|>", pad="<|endoftext|>")
    ids = qwen2.ids("a red")
    assert qwen2.encode("a red").tolist() == [*ids, 702, *[700] * (7 - len(ids))]
    assert qwen2.special_tokens.never_written == (700, 701)
    assert qwen2.room == 7


def test_extra_tokens_are_words_behind_the_vocabulary():
    fields = dict(eos="<|im_end|>", bos="<new>", pad="<pad>")
    extended = tokenizer_json.Tokenizer(
        QWEN2, 16, extra_tokens=["<pad>", "<box>", "<new>"], **fields
    )
    assert extended.vocab_size == 706
    ids = extended.ids("a <box>dog")
    assert ids.count(704) == 1
    row = extended.encode("a <box>dog")
    assert row.tolist() == [705, *ids, 702, *[703] * (14 - len(ids))]
    assert extended.decode(row) == "a <box>dog"
    assert extended.special_tokens.never_written == (700, 701, 703, 705)  # <box> may be written


def test_an_end_that_a_text_writes_out_ends_it(llama3):
    row = llama3.encode("a<|end_of_text|>b")
    assert llama3.decode(row) == "a"


def test_what_the_file_adds_cuts_and_fills_is_not_done():
    document = json.loads(QWEN2)
    document["truncation"] = dict(
        direction="Right", max_length=2, strategy="LongestFirst", stride=0
    )
    document["padding"] = dict(strategy={"Fixed": 9}, direction="Right", pad_to_multiple_of=None,
                               pad_id=0, pad_type_id=0, pad_token="!")  # fmt: skip
    end = {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}
    document["post_processor"] = dict(
        type="TemplateProcessing",
        single=[{"Sequence": {"id": "A", "type_id": 0}}, end],
        pair=[{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        special_tokens={"<|im_end|>": dict(id="<|im_end|>", ids=[702], tokens=["<|im_end|>"])},
    )
    plain = tokenizer_json.Tokenizer(QWEN2, eos="<|im_end|>")
    other = tokenizer_json.Tokenizer(json.dumps(document).encode(), eos="<|im_end|>")
    assert len(plain.ids("a photo of a cat")) > 2
    for text in ("a photo of a cat", "a"):
        assert other.ids(text) == plain.ids(text)


def test_too_long_is_refused_or_cut(llama3):
    with pytest.raises(CaptionTooLong, match="leaves room for 10"):
        llama3.encode("a photo of a photo of a photo of a photo of")
    row = llama3.encode("a photo of a photo of a photo of a photo of", truncate=True)
    assert row[-1] == 701
    assert (row[:-1] != 701).all()


def test_mistakes_are_named(tmp_path):
    for broken in (b"", b"{}", b"no json", MODELS["t5"], QWEN2[:500]):
        with pytest.raises(UserError, match=r"is no tokenizer.json that the package tokenizers"):
            tokenizer_json.Tokenizer(broken, eos="<|im_end|>")
    for field in ("eos", "bos", "pad"):
        fields = {"eos": "<|im_end|>", field: "</s>"}
        with pytest.raises(UserError, match=f"tokenizer.{field}='</s>' is no token"):
            tokenizer_json.Tokenizer(QWEN2, **fields)
    with pytest.raises(UserError, match="eos='' is no token"):
        tokenizer_json.Tokenizer(QWEN2, eos="")
    with pytest.raises(UserError, match=r"has '<\|im_end\|>', which is a token already"):
        tokenizer_json.Tokenizer(QWEN2, eos="<|im_end|>", extra_tokens=("<|im_end|>",))
    with pytest.raises(UserError, match="must be a list of tokens, not the text '<a>'"):
        tokenizer_json.Tokenizer(QWEN2, eos="<|im_end|>", extra_tokens="<a>")
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*none.json"):
        tokenizer_json.make(path=str(tmp_path / "none.json"), eos="<|im_end|>")
    with pytest.raises(UserError, match="max_length=2 leaves no room"):
        tokenizer_json.Tokenizer(MODELS["llama3"], 2, **LLAMA3)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"package tokenizers: pip install"):
        tokenizer_json.Tokenizer(QWEN2, eos="<|im_end|>")


def test_it_survives_files_and_pickling(tmp_path):
    fields = dict(max_length=16, eos="<|im_end|>", pad="<pad>", extra_tokens=("<pad>",))
    first = tokenizer_json.reopen(QWEN2, **fields)
    first.save(tmp_path / "tokenizer.json")
    for copy in (
        tokenizer_json.make(path=str(tmp_path / "tokenizer.json"), **fields),
        tokenizer_json.reopen(first.model, path="gone", **fields),
        pickle.loads(pickle.dumps(first)),
    ):
        assert copy.fingerprint == first.fingerprint
        np.testing.assert_array_equal(copy.encode("a dog"), first.encode("a dog"))
    other = tokenizer_json.reopen(QWEN2, eos="<|im_end|>")
    assert other.fingerprint != first.fingerprint


def test_threads_share_one(llama3):
    texts = [f"a {word} {number}" for word in ("dog", "cat") for number in range(300)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(llama3.ids, texts)) == [llama3.ids(text) for text in texts]
