"""SentencePiece files as SigLIP reads them: the ids of Transformers, rows without BOS, refusals."""

import base64
import hashlib
import io
import json
import pathlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import awkward_texts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece

from capjax.data import sentencepiece_file, tokenizer
from capjax.data.token_rows import CaptionTooLong
from capjax.errors import UserError
from capjax.models import siglip

ORIGINAL = json.loads((pathlib.Path(__file__).parent / "sentencepiece_original.json").read_text())
SIGLIP, SIGLIP2 = (base64.b64decode(ORIGINAL["models"][name]) for name in ("siglip", "siglip2"))
WORDS = ["a red circle", "a blue square", "red and blue", "a dog's tail", "[circle]"]
MIXED = "A  CAT'S\ttoy_\u00c9, \u03a3\u0391\u03a3! B\u2581C \u2581 D"


@pytest.fixture(scope="module")
def first():
    return sentencepiece_file.Tokenizer(SIGLIP)


@pytest.fixture(scope="module")
def second():
    return sentencepiece_file.Tokenizer(SIGLIP2, clean="lower", pad="<pad>")


def trained(**fields):
    """The bytes of a byte-pair model of WORDS."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 3),
        model_writer=model,
        model_type="bpe",
        vocab_size=60,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
        **fields,
    )
    return model.getvalue()


def test_a_row_is_pieces_end_and_the_end_as_padding(first):
    row = first.encode("A photo, on the street.")
    ids = first.ids("a photo on the street")
    assert len(ids) == 5
    assert row.tolist() == [*ids, *[1] * 59]
    assert row.dtype == np.int32
    assert first.decode(row) == "a photo on the street"
    special = first.special_tokens
    assert (special.pad, special.bos, special.eos, special.never_written) == (1, None, 1, (0, 2))
    until_end = special.until_end(jnp.asarray(row))
    np.testing.assert_array_equal(until_end, [True] * 6 + [False] * 58)
    assert first.vocab_size == 600


def test_the_second_siglip_pads_with_its_own_piece(second):
    row = second.encode("A dog.")
    ids = second.ids("a dog.")
    assert row.tolist() == [*ids, 1, *[0] * (63 - len(ids))]
    assert second.decode(row) == "a dog."
    special = second.special_tokens
    assert (special.pad, special.bos, special.eos, special.never_written) == (0, None, 1, (0, 2, 3))


def test_texts_have_the_ids_of_transformers(first, second):
    digests = {name: {kind: hashlib.sha256() for kind in awkward_texts.KINDS}
               for name in ("siglip", "siglip2")}  # fmt: skip
    for kind, text in awkward_texts.generate():
        ids = {"siglip": first.row(first.ids(text)[:63]), "siglip2": second.ids(text)}
        for name, row in ids.items():
            digests[name][kind].update((" ".join(map(str, row)) + "\n").encode())
    for name, by_kind in digests.items():
        got = {kind: digest.hexdigest() for kind, digest in by_kind.items()}
        assert got == ORIGINAL["generated"][name]


def test_chosen_texts_have_the_ids_of_transformers(first, second):
    assert [case[0] for case in ORIGINAL["cases"]] == list(awkward_texts.CASES)
    for text, ids, ids2 in ORIGINAL["cases"]:
        assert first.ids(text) == ids, text
        assert second.ids(text) == ids2, text


@pytest.mark.parametrize(
    ("clean", "expected"),
    [
        ("lower_without_punctuation", "a cats toy\u00e9 \u03c3\u03b1\u03c2 b c d"),
        ("lower", "a  cat's\ttoy_\u00e9, \u03c3\u03b1\u03c3! b\u2581c \u2581 d"),
        ("lower_ascii", "a  cat's\ttoy_\u00c9, \u03a3\u0391\u03a3! b\u2581c \u2581 d"),
        ("", MIXED),
    ],
)
def test_cleanings(clean, expected):
    # This file keeps every character apart: no normalisation, and bytes for what it lacks.
    as_it_is = sentencepiece_file.Tokenizer(SIGLIP2, clean="")
    ids = sentencepiece_file.Tokenizer(SIGLIP2, clean=clean).ids(MIXED)
    assert ids == as_it_is.ids(expected)
    assert as_it_is.text(ids) == expected.replace("\u2581", " ")


def test_a_special_token_written_out_is_only_characters(first, second):
    assert first.ids("a</s>b <unk> <pad>") == first.ids("asb unk pad")
    for text in ("<eos>", "a <eos> b", "<pad><bos>", "<unk>"):
        assert not {0, 1, 2, 3} & set(second.ids(text))


def test_too_long_is_cut_before_the_end_or_refused(first):
    with pytest.raises(CaptionTooLong, match=r"has 70 tokens .*=64 leaves room for 63"):
        first.encode("cat " * 70)
    row = first.encode("cat " * 70, truncate=True)
    assert row.tolist() == [*first.ids("cat " * 63), 1]
    assert (row[:-1] != 1).all()
    np.testing.assert_array_equal(first.encode("cat " * 63), row)


@pytest.mark.parametrize("caption", ["", " \n", "!?", "..."])
def test_what_is_left_without_a_piece_is_refused(first, caption):
    with pytest.raises(UserError, match="the caption is empty"):
        first.encode(caption)
    assert first.row([]).tolist() == [1] * 64


def test_the_end_is_found_by_the_name_that_the_file_gives_it():
    model = trained(eos_piece="<eos>", eos_id=7, bos_id=-1, pad_id=0, unk_id=2)
    made = sentencepiece_file.Tokenizer(model, 8, clean="", pad="<pad>")
    assert (made.special_tokens.eos, made.special_tokens.pad) == (7, 0)
    assert made.encode("red").tolist()[-1] == 0
    assert 7 in made.encode("red")


def test_mistakes_are_named(tmp_path):
    for broken in (b"", b"not a model", b'{"version": "1.0"}', SIGLIP[:4000]):
        with pytest.raises(UserError, match="is not a SentencePiece model: give the published"):
            sentencepiece_file.Tokenizer(broken)
    with pytest.raises(UserError, match=r"has no end of text .*choose the model"):
        sentencepiece_file.Tokenizer(trained(eos_id=-1))
    with pytest.raises(UserError, match=r"pad='<padding>' is no piece .*leave it empty"):
        sentencepiece_file.Tokenizer(SIGLIP, pad="<padding>")
    with pytest.raises(UserError, match=r"tokenizer.clean must be one of lower_.*'', not 'Lower'"):
        sentencepiece_file.Tokenizer(SIGLIP, clean="Lower")
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*none.model"):
        sentencepiece_file.make(path=str(tmp_path / "none.model"))
    with pytest.raises(UserError, match=r"max_length=1 leaves no room for a word: use at least 2"):
        sentencepiece_file.Tokenizer(SIGLIP, 1)


def test_what_writes_captions_cannot_begin_with_it(first):
    with pytest.raises(UserError, match="the tokenizer has none: choose a tokenizer whose rows"):
        first.special_tokens.start  # noqa: B018
    assert tokenizer.train(WORDS, 60, 8).special_tokens.start == 1


def test_it_survives_files_and_pickling(second, tmp_path):
    second.save(tmp_path / "gemma.model")
    fields = dict(max_length=64, clean="lower", pad="<pad>")
    for copy in (
        sentencepiece_file.make(path=str(tmp_path / "gemma.model"), **fields),
        sentencepiece_file.reopen(second.model, path="gone", **fields),
        pickle.loads(pickle.dumps(second)),
    ):
        assert copy.fingerprint == second.fingerprint
        np.testing.assert_array_equal(copy.encode("A dog."), second.encode("A dog."))
    others = [dict(fields, clean=""), dict(fields, pad="")]
    for other in (sentencepiece_file.Tokenizer(SIGLIP2, **fields) for fields in others):
        assert other.fingerprint != second.fingerprint


def test_threads_share_one(first):
    texts = [text for _, text in awkward_texts.generate()[:1000]]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(first.ids, texts)) == [first.ids(text) for text in texts]


def test_siglip_reads_its_rows(first):
    model = siglip.Model(
        first.vocab_size,
        first.max_length,
        image_size=4,
        overrides=dict(patch_size=2, layers=1, width=8, heads=2, mlp_dim=8),
        special_tokens=first.special_tokens,
    )
    rows = jnp.asarray(first.encode_batch(["a dog", "A DOG!", "a cat"]))
    image = jnp.zeros((3, 4, 4, 3), jnp.uint8)
    params = jax.jit(model.init)(jax.random.key(0), image, rows)
    _, text = jax.jit(model.apply)(params, image, rows)
    np.testing.assert_array_equal(text[0], text[1])
    assert np.abs(text[0] - text[2]).max() > 1e-4
