"""Tokens that an import has added, in the files of an export; tokenizers that cannot grow."""

import json

import numpy as np
import peer_cases
import published
import pytest
from peer_weights import cases, publish

from capjax import runs
from capjax.data import wordpiece
from capjax.errors import UserError
from capjax.weights import llama
from capjax.weights.exporting import export
from capjax.weights.importing import import_checkpoint
from capjax.weights.plan import Source
from capjax.weights.verify import differences

tokenizers = pytest.importorskip(
    "tokenizers", reason="needs the extra text: pip install ftfy regex tokenizers"
)

NEW = ("<box>", "<end>")
TEXTS = ("a <box> dog", "<end>")
BERT, BLIP, LLAMA = cases("bert")[0], cases("blip")[0], cases("llama")[0]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog"]


def vocabulary(count):
    """The lines of a vocab.txt."""
    return WORDS + [f"w{i}" for i in range(count - len(WORDS))]


def bert(folder):
    """A BERT whose vocab.txt ends without a line's end, and its tokenizer_config.json."""
    (folder / "vocab.txt").write_text("\n".join(vocabulary(BERT["config"]["vocab_size"])))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return publish(folder, peer_cases.tensors(BERT), BERT["config"])


def blip(folder):
    """BLIP with BERT's vocab.txt, which lacks [DEC] and [ENC]."""
    text = BLIP["config"]["text_config"] | {"sep_token_id": WORDS.index("[SEP]")}
    words = vocabulary(text["vocab_size"] - 2)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return publish(folder, peer_cases.tensors(BLIP), BLIP["config"] | {"text_config": text})


def pipeline(folder):
    """Llama's tensors beside a tokenizer.json, as Qwen's."""
    rows = LLAMA["tensors"]["model.embed_tokens.weight"][0]
    words = {word: i for i, word in enumerate(["</s>", *vocabulary(rows - 1)])}
    pieces = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    pieces.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return publish(folder, peer_cases.tensors(LLAMA), LLAMA["config"])


def gpt2(folder):
    """GPT-2 with vocab.json and merges.txt alone."""
    return published.gpt2(folder)


@pytest.mark.parametrize("make", [bert, blip, pipeline, gpt2])
def test_new_tokens_are_in_the_exported_files(make, tmp_path):
    (tmp_path / "published").mkdir()
    checkpoint = make(tmp_path / "published")
    run = import_checkpoint(checkpoint, tmp_path / "run", add_tokens=NEW)
    before = {word: run.tokenizer.ids(word) for word in TEXTS}
    count = run.tokenizer.vocab_size
    assert before["<end>"] == [count - 1]
    assert count - 2 in before["a <box> dog"]
    # A captioner may write them.
    assert not {count - 1, count - 2} & {*run.tokenizer.special_tokens.never_written}
    export(tmp_path / "run", tmp_path / "back")
    (tmp_path / "run").rename(tmp_path / "gone")  # whose tokenizer must not be needed
    again = import_checkpoint(tmp_path / "back", tmp_path / "again")
    assert {word: again.tokenizer.ids(word) for word in TEXTS} == before
    assert again.tokenizer.special_tokens == run.tokenizer.special_tokens
    assert all(d.largest == 0 for d in differences(tmp_path / "again", tmp_path / "back"))
    told = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
    added = told["added_tokens_decoder"]
    assert [added[str(count - 2)]["content"], added[str(count - 1)]["content"]] == list(NEW)


def test_blips_own_tokens_stay(tmp_path):
    """They are followed by the new ones, in the run and in the exported vocab.txt."""
    run = import_checkpoint(blip(tmp_path), tmp_path / "run", add_tokens=NEW)
    rows = BLIP["config"]["text_config"]["vocab_size"]
    assert run.config.tokenizer.bos == "[DEC]"
    assert run.tokenizer.special_tokens.bos == rows - 2
    assert {rows - 2, rows - 1} <= {*run.tokenizer.special_tokens.never_written}
    export(tmp_path / "run", tmp_path / "back")
    lines = (tmp_path / "back" / "vocab.txt").read_text().splitlines()
    assert lines[-5:] == [f"w{rows - 10}", "[DEC]", "[ENC]", *NEW]
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["text_config"]["vocab_size"] == rows + 2
    assert "vocab_size" not in config
    told = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
    special = [t["content"] for t in told["added_tokens_decoder"].values() if t["special"]]
    assert special == ["[DEC]", "[ENC]"]


def test_a_published_pipeline_is_extended_and_not_replaced(tmp_path):
    """Beside vocab.txt lies a tokenizer.json, which libraries prefer: both must know the tokens."""
    count = BERT["config"]["vocab_size"]
    ids = {word: i for i, word in enumerate(vocabulary(count))}
    pieces = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
    pieces.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    bert(tmp_path)
    pieces.save(str(tmp_path / "tokenizer.json"))
    import_checkpoint(tmp_path, tmp_path / "run", add_tokens=NEW)
    export(tmp_path / "run", tmp_path / "back")
    exported = tokenizers.Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    assert exported.encode("a <box> dog").ids == [2, 5, count, 6, 3]
    assert (tmp_path / "back" / "vocab.txt").read_text().splitlines()[-2:] == list(NEW)


def test_other_ids_than_the_runs_are_refused(tmp_path):
    """The form of a checkpoint whose vocabulary is longer would number the tokens otherwise."""
    import_checkpoint(published.gpt2(tmp_path / "gpt2"), tmp_path / "run", add_tokens=NEW)
    other = published.gpt2(tmp_path / "other")
    ids = json.loads((other / "vocab.json").read_text())
    pieces = tokenizers.ByteLevelBPETokenizer(ids | {"more": len(ids)}, [])
    pieces.save(str(other / "tokenizer.json"))
    import_checkpoint(other, tmp_path / "like", tokenizer=other / "vocab.json")
    with pytest.raises(UserError, match="'<box>' is number 270 in the run and would be number 271"):
        export(tmp_path / "run", tmp_path / "not", like=tmp_path / "like")
    assert not (tmp_path / "not").exists()


def test_tokenizers_that_cannot_grow_say_so(tmp_path):
    vit = published.vit(tmp_path / "vit")
    with pytest.raises(UserError, match="the family vit reads no text, so that it has no tokens"):
        import_checkpoint(vit, tmp_path / "not", add_tokens=NEW)
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "tokenizer.model").touch()
    publish(folder, peer_cases.tensors(LLAMA), LLAMA["config"])
    with pytest.raises(UserError, match=r"tokenizer\.model', cannot grow: SentencePiece models"):
        import_checkpoint(folder, tmp_path / "not", add_tokens=NEW)
    assert not list(tmp_path.glob("not*"))


def test_a_pipeline_is_told_by_what_is_in_it(tmp_path):
    """A run calls every tokenizer tokenizer.model; so is --tokenizer RUN/tokenizer.model read."""
    (tmp_path / "published").mkdir()
    folder = pipeline(tmp_path / "published")
    first = import_checkpoint(folder, tmp_path / "run")
    (folder / "tokenizer.json").unlink()
    kept = tmp_path / "run" / runs.TOKENIZER
    again = import_checkpoint(folder, tmp_path / "again", tokenizer=kept)
    assert again.tokenizer.fingerprint == first.tokenizer.fingerprint
    # Its file did not lie in the folder: an export holds it nevertheless.
    export(tmp_path / "again", tmp_path / "back")
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == kept.read_bytes()


def test_a_folder_may_be_named_as_the_tokenizer(tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text("{}")
    (tmp_path / "words" / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    source = Source(
        tmp_path, peer_cases.tensors(LLAMA), LLAMA["config"], {}, tokenizer=tmp_path / "words"
    )
    section = llama.plan(source).tokenizer
    assert section["path"] == str(tmp_path / "words" / "tokenizer.json")
    assert section["eos"] == "<end>"


def test_new_words_beside_a_vocabulary():
    """Each is one id, and a word that may be written, unlike the special tokens."""
    model = "\n".join(WORDS).encode()
    fields = dict(max_length=8, extra_tokens=["[DEC]"], bos="[DEC]", new_words=["<Box>"])
    tokenizer = wordpiece.make(None, path=model, **fields)
    assert tokenizer.encode("A <Box> dog").tolist() == [7, 5, 8, 6, 3, 0, 0, 0]
    assert tokenizer.decode(tokenizer.encode("A <Box> dog")) == "a <Box> dog"
    assert tokenizer.special_tokens.never_written == (0, 1, 2, 4, 7)
    copy = wordpiece.reopen(tokenizer.model, **fields)
    assert copy.fingerprint == tokenizer.fingerprint
    np.testing.assert_array_equal(copy.encode("<Box>"), tokenizer.encode("<Box>"))
    without = wordpiece.make(None, path=model, **(fields | {"new_words": []}))
    assert without.fingerprint != tokenizer.fingerprint
