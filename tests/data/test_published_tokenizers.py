"""GPT-2, Qwen 2, Llama 3, T5 and Llama: the ids of Transformers on real and awkward texts."""

import base64
import hashlib
import json
import lzma
import pathlib

import awkward_texts
import pytest

from capjax.data import gpt2_bpe, sentencepiece_file, tokenizer_json

pytest.importorskip("tokenizers", reason="needs the extra text: pip install ftfy regex tokenizers")

ORIGINAL = json.loads((pathlib.Path(__file__).parent / "published_tokenizers.json").read_text())
MODELS = {name: lzma.decompress(base64.b64decode(m)) for name, m in ORIGINAL["models"].items()}
LLAMA3 = dict(bos="<|begin_of_text|>", eos="<|end_of_text|>")
NAMES = ("gpt2", "qwen2", "llama3", "t5", "llama")


def left_out(name, kind, text):
    """What Transformers reads otherwise: see the docstring of `sentencepiece_file`."""
    if name == "t5":
        return "\x85" in text or kind == "long"
    return name == "llama" and text.startswith(" ")


@pytest.fixture(scope="module", params=NAMES)
def named(request):
    name = request.param
    if name == "gpt2":
        folder = request.getfixturevalue("shared") / "data" / "gpt2_bpe"
        return name, gpt2_bpe.make(path=str(folder))
    model = MODELS[name]
    if name == "qwen2":
        return name, tokenizer_json.reopen(model, eos="<|im_end|>", pad="<|endoftext|>")
    if name == "llama3":
        return name, tokenizer_json.reopen(model, **LLAMA3)
    fields = dict(pad="<pad>") if name == "t5" else dict(bos="<s>")
    return name, sentencepiece_file.reopen(model, clean="", **fields)


def digest(rows):
    return hashlib.sha256(
        b"".join((" ".join(map(str, row)) + "\n").encode() for row in rows)
    ).hexdigest()


def test_awkward_texts_have_the_ids_of_transformers(named):
    name, tokenizer = named
    by_kind = {kind: [] for kind in awkward_texts.KINDS}
    for kind, text in awkward_texts.generate():
        if not left_out(name, kind, text):
            by_kind[kind].append(tokenizer.ids(text))
    got = {kind: digest(rows) for kind, rows in by_kind.items()}
    assert got == ORIGINAL["generated"][name]


def test_captions_have_the_ids_of_transformers(named, shared):
    name, tokenizer = named
    lines = (shared / "data" / "flickr8k" / "captions_dev.jsonl").read_text().splitlines()
    captions = [caption for line in lines for caption in json.loads(line)["captions"]]
    assert len(captions) == 5000
    assert digest(map(tokenizer.ids, captions)) == ORIGINAL["captions"][name]


def test_chosen_texts_have_the_ids_of_transformers(named):
    name, tokenizer = named
    for text, ids in ORIGINAL["cases"]:
        assert tokenizer.ids(text) == ids[name], text


def test_captions_come_back(named):
    _, tokenizer = named
    caption = "A dog's tail wags ."
    row = tokenizer.encode(caption)
    assert tokenizer.decode(row) == caption
    # What a captioner writes begins behind BOS.
    assert tokenizer.decode(row[tokenizer.special_tokens.bos is not None :]) == caption


def test_rows_of_llama_begin_with_their_piece():
    llama = sentencepiece_file.reopen(MODELS["llama"], clean="", bos="<s>", max_length=24)
    ids = llama.ids("A red circle")
    assert llama.encode("A red circle").tolist() == [1, *ids, *[2] * (23 - len(ids))]
    special = llama.special_tokens
    assert (special.start, special.eos, special.pad, special.never_written) == (1, 2, 2, (0, 1))
    assert llama.room == 22
    without = sentencepiece_file.reopen(MODELS["llama"], clean="", max_length=24)
    assert without.ids("A red circle") == ids
    assert without.fingerprint != llama.fingerprint


def test_the_decoder_of_t5_begins_with_its_padding():
    t5 = sentencepiece_file.reopen(MODELS["t5"], clean="", pad="<pad>", bos="<pad>", max_length=24)
    ids = t5.ids("A red circle")
    row = t5.encode("A red circle")
    assert row.tolist() == [0, *ids, 1, *[0] * (22 - len(ids))]
    assert t5.decode(row) == "A red circle"
    assert t5.special_tokens.never_written == (0, 2)
    assert t5.special_tokens.to_write(row).sum() == len(ids) + 1
