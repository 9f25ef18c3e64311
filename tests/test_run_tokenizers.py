"""Runs with tokenizers other than the default: what is kept, reopened, resumed and taken over."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import toy

from capjax import runs
from capjax.config import from_json, to_json
from capjax.data import tokenizer as sentencepiece
from capjax.errors import UserError
from capjax.special_tokens import SpecialTokens, of
from capjax.train import train

MERGES = b"#version: 0.2\nr e\nre d</w>\ng re\n"


class Model(toy.Model):
    """The toy captioner, for any special tokens."""

    special_tokens: SpecialTokens = SpecialTokens()


def config_of(tokenizer, steps=2, model="test_run_tokenizers"):
    config = toy.get_config(f"steps={steps}")
    config.model = {"name": model}
    config.tokenizer = tokenizer
    return config


def clip(path, **fields):
    path.write_bytes(MERGES)
    return dict(name="capjax.data.clip_bpe", path=str(path), max_length=40, num_merges=3, **fields)


def words(**fields):
    return dict(name="capjax.data.wordpiece", vocab_size=80, max_length=16, **fields)


def test_a_run_with_a_published_vocabulary_needs_its_directory_alone(tmp_path):
    pytest.importorskip("ftfy")
    pytest.importorskip("regex")
    merges = tmp_path / "merges.txt"
    config = config_of(clip(merges))
    train(config, tmp_path / "run")
    merges.unlink()
    run = runs.open_run(tmp_path / "run")
    assert run.tokenizer.vocab_size == 517
    assert run.model.special_tokens == run.tokenizer.special_tokens
    assert run.model.special_tokens.eos == 516
    row = run.tokenizer.encode("a red picture")
    assert run.tokenizer.decode(row) == "a red picture"
    image = jnp.zeros((1, 8, 8, 3), jnp.uint8)
    assert run.model.apply({"params": run.params}, image, row[None]).shape == (1, 40, 517)
    config.steps = 3  # goes on without the file, too
    assert train(config, tmp_path / "run").step == 3


def test_parameters_are_taken_over_with_their_vocabulary_wherever_it_lies(tmp_path):
    pytest.importorskip("ftfy")
    pytest.importorskip("regex")
    train(config_of(clip(tmp_path / "a.txt"), steps=1), tmp_path / "first")
    config = config_of(clip(tmp_path / "b.txt"), steps=1)
    config.init_from = str(tmp_path / "first")
    train(config, tmp_path / "second")
    first, second = (runs.open_run(tmp_path / name) for name in ("first", "second"))
    assert first.tokenizer.fingerprint == second.tokenizer.fingerprint
    (tmp_path / "b.txt").write_bytes(MERGES.replace(b"g re", b"e d"))
    with pytest.raises(UserError, match=r"b.txt' holds another vocabulary"):
        train(config, tmp_path / "third")
    config.tokenizer.clean = "whitespace"
    with pytest.raises(UserError, match="clean: 'absent' -> 'whitespace'"):
        train(config, tmp_path / "third")


def test_a_wordpiece_vocabulary_is_trained_by_the_run(tmp_path):
    pytest.importorskip("tokenizers")
    train(config_of(words(num_records=9), steps=1), tmp_path)
    run = runs.open_run(tmp_path)
    assert run.tokenizer.decode(run.tokenizer.encode("a RED picture")) == "a red picture"
    assert (tmp_path / "tokenizer.model").read_text().startswith("[PAD]\n[UNK]\n[CLS]\n[SEP]")
    assert run.model.special_tokens.eos == 3


def test_a_model_that_cannot_know_the_special_tokens_is_refused(tmp_path):
    pytest.importorskip("tokenizers")
    with pytest.raises(
        UserError, match=r"toy has no field special_tokens.*whose special ids are SpecialTokens"
    ):
        train(config_of(words(), model="toy"), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(path=None), "config.tokenizer lacks the field 'path'"),
        (dict(pathh="x"), "has a field 'pathh'.*did you mean 'path'"),
        (dict(name="capjax.data.clip_pbe"), "names the module 'capjax.data.clip_pbe'"),
        (dict(name="capjax.data.images"), "'capjax.data.images' offers no 'make'"),
        (dict(name=""), "config.tokenizer names no module"),
    ],
)
def test_mistakes_in_the_section_are_named(tmp_path, change, message):
    section = {**clip(tmp_path / "m.txt"), **change}
    section = {name: value for name, value in section.items() if value is not None}
    with pytest.raises(UserError, match=message):
        train(config_of(section), tmp_path / "run")


def test_the_run_of_a_time_without_kinds_reopens_and_goes_on(tmp_path):
    config = toy.get_config("steps=2")
    train(config, tmp_path)
    # Such a run's config does not say how its tokenizer is called.
    old = json.loads((tmp_path / "config.json").read_text())
    assert old["tokenizer"].pop("name") == "capjax.data.tokenizer"
    assert old["optimizer"].pop("epsilon") == 1e-8  # of a time before that field, too
    (tmp_path / "config.json").write_text(json.dumps(old))
    run = runs.open_run(tmp_path)
    assert isinstance(run.tokenizer, sentencepiece.Tokenizer)
    config.steps = 3
    assert train(config, tmp_path).step == 3
    assert from_json(to_json(runs.read_config(tmp_path))).tokenizer.name == "capjax.data.tokenizer"


def test_the_text_of_a_row_ends_at_its_first_end():
    special = SpecialTokens(pad=0, bos=8, eos=9, never_written=(8,))
    tokens = np.array([[8, 0, 5, 9, 0, 0], [8, 9, 9, 0, 9, 0], [8, 0, 0, 1, 2, 3]])
    expected = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], bool)
    np.testing.assert_array_equal(special.until_end(tokens), expected)
    np.testing.assert_array_equal(special.until_end(jnp.asarray(tokens)), expected)
    # For a vocabulary whose padding is no word it is the same as "no padding".
    own = np.array([[1, 5, 6, 2, 0, 0], [1, 2, 0, 0, 0, 0], [1, 4, 4, 4, 4, 2]])
    np.testing.assert_array_equal(SpecialTokens().until_end(own), own != 0)


def test_a_model_without_the_field_has_the_tokens_of_our_own_vocabularies():
    special = SpecialTokens(eos=7)
    assert of(Model(9, 4, 8, special_tokens=special)) is special
    assert of(toy.Model(9, 4, 8)) == SpecialTokens()
    assert hash(dataclasses.replace(special)) == hash(special)
