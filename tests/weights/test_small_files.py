"""Which files travel with the tensors, into a run and out of it."""

import json
import pathlib

import peer_cases
import published
import pytest
from peer_weights import cases, publish

from capjax.weights import small_files
from capjax.weights.exporting import export
from capjax.weights.importing import PUBLISHED, import_checkpoint

BERT = cases("bert")[0]
MEBIBYTE = 2**20


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_texts_and_tokenizers_travel(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here / "1_Pooling", here / "onnx", there):
        folder.mkdir(parents=True)
    travel = {"config.json", "LICENSE", "LICENSE.txt", "vocab.bpe", "encoder.json", "merges.txt"}
    travel |= {
        "bpe_simple_vocab_16e6.txt.gz",
        "spiece.model",
        "tokenizer.json",
        "1_Pooling/config.json",
    }
    travel |= {"modules.json", "README.md"}
    stay = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "tok512.bin"}
    stay |= {"big.json", "onnx/config.json", "1_Pooling/model.safetensors", "picture.png"}
    for name in travel | stay:
        (here / name).write_bytes(b"{}")
    # Tokenizers may be larger than other texts.
    for name in ("big.json", "tokenizer.json", "merges.txt"):
        (here / name).write_bytes(b" " * (MEBIBYTE + 1))
    small_files.copy(here, there, but=("modules.json",))
    assert names(there) == travel - {"modules.json"}
    assert (there / "merges.txt").stat().st_size == MEBIBYTE + 1
    assert small_files.has_vocabulary(there)
    assert not small_files.has_vocabulary(there / "1_Pooling")


def test_gpt2s_first_names_travel(tmp_path):
    """encoder.json and vocab.bpe: without the second, the exported model would read no text."""
    pytest.importorskip("tokenizers", reason="needs the extra text")
    folder = published.gpt2(tmp_path / "gpt2")
    (folder / "vocab.json").rename(folder / "encoder.json")
    (folder / "merges.txt").rename(folder / "vocab.bpe")
    first = import_checkpoint(folder, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "back")
    assert {"encoder.json", "vocab.bpe"} <= names(tmp_path / "back")
    again = import_checkpoint(tmp_path / "back", tmp_path / "again")
    assert again.tokenizer.fingerprint == first.tokenizer.fingerprint


def test_a_sentence_encoder_keeps_its_pooling(tmp_path):
    """modules.json names its folder; without it a mean over words would become [CLS]."""
    pytest.importorskip("tokenizers", reason="needs the extra text")
    folder = tmp_path / "encoder"
    (folder / "1_Pooling").mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words += [f"w{i}" for i in range(BERT["config"]["vocab_size"] - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "modules.json").write_text(json.dumps([{"path": "1_Pooling"}]))
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    publish(folder, peer_cases.tensors(BERT), BERT["config"])
    run = import_checkpoint(folder, tmp_path / "run")
    assert run.config.model.overrides.embedding == "mean"
    kept = pathlib.Path("1_Pooling", "config.json")
    assert (tmp_path / "run" / PUBLISHED / kept).is_file()
    plan = export(tmp_path / "run", tmp_path / "back")
    assert plan.model["overrides"]["embedding"] == "mean"
    assert (tmp_path / "back" / kept).read_bytes() == (folder / kept).read_bytes()
