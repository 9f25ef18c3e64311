"""What an export must not decide anew, the names that libraries look for, and verifying it."""

import gzip
import json

import numpy as np
import openai_clip
import peer_cases
import published
import pytest
from peer_weights import cases, publish

from capjax.data import wordpiece
from capjax.errors import UserError
from capjax.weights import blip, families
from capjax.weights.exporting import export
from capjax.weights.files import open_tensors
from capjax.weights.importing import ORIGIN, PUBLISHED, import_checkpoint
from capjax.weights.verify import differences

pytest.importorskip("tokenizers", reason="needs the extra text: pip install ftfy regex tokenizers")

BLIP = cases("blip")[0]
HEAD = "text_decoder.cls.predictions"
BIAS, DECODER_BIAS, WRITE = f"{HEAD}.bias", f"{HEAD}.decoder.bias", f"{HEAD}.decoder.weight"
WORDS = "text_decoder.bert.embeddings.word_embeddings.weight"


def blip_with(folder, **tensors):
    """The tied case with other tensors in its file."""
    folder.mkdir()
    text = BLIP["config"]["text_config"]
    pieces = [f"w{i}" for i in range(text["vocab_size"] - 2)]
    pieces[:3], pieces[text["sep_token_id"]] = ["[PAD]", "[UNK]", "[CLS]"], "[SEP]"
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return publish(folder, peer_cases.tensors(BLIP) | tensors, BLIP["config"])


def there_and_back(checkpoint, tmp_path):
    """The tensors of the export, by name."""
    import_checkpoint(checkpoint, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "back")
    return dict(open_tensors(tmp_path / "back"))


def test_two_biases_that_differ(tmp_path):
    """The second is computed with; both names are there again, as the library expects them."""
    tensors = peer_cases.tensors(BLIP)
    used = 2 * tensors[BIAS]
    found = there_and_back(blip_with(tmp_path / "blip", **{DECODER_BIAS: used}), tmp_path)
    np.testing.assert_array_equal(found[DECODER_BIAS], used)
    np.testing.assert_array_equal(found[BIAS], used)
    again = blip.plan(families.open_source(tmp_path / "back"))
    assert again.choices == {"tied": True, "bias": BIAS}


def test_two_words_matrices_that_differ(tmp_path):
    tensors = peer_cases.tensors(BLIP)
    wide = blip_with(tmp_path / "apart", **{WRITE: 2 * tensors[WORDS]})
    found = there_and_back(wide, tmp_path)
    np.testing.assert_array_equal(found[WRITE], 2 * tensors[WORDS])
    np.testing.assert_array_equal(found[WORDS], tensors[WORDS])


def test_what_is_published_twice_is_exported_twice(tmp_path):
    tensors = peer_cases.tensors(BLIP)
    twice = blip_with(tmp_path / "blip", **{WRITE: tensors[WORDS], DECODER_BIAS: tensors[BIAS]})
    found = there_and_back(twice, tmp_path)
    assert sorted(found) == sorted({*tensors, WRITE, DECODER_BIAS})
    np.testing.assert_array_equal(found[WRITE], found[WORDS])
    gpt2 = dict(open_tensors(published.gpt2(tmp_path / "gpt2")))
    (tmp_path / "gpt2" / "model.safetensors").unlink()
    config = json.loads((tmp_path / "gpt2" / "config.json").read_text())
    publish(tmp_path / "gpt2", gpt2 | {"lm_head.weight": gpt2["wte.weight"]}, config)
    import_checkpoint(tmp_path / "gpt2", tmp_path / "second", add_tokens=["<box>"])
    export(tmp_path / "second", tmp_path / "second_back", dtype="bfloat16")
    found = open_tensors(tmp_path / "second_back")
    assert found["lm_head.weight"].shape[0] == len(gpt2["wte.weight"]) + 1
    np.testing.assert_array_equal(found["lm_head.weight"], found["wte.weight"])


def test_a_run_that_does_not_keep_what_was_decided(tmp_path):
    import_checkpoint(blip_with(tmp_path / "blip"), tmp_path / "run")
    origin = tmp_path / "run" / PUBLISHED / ORIGIN
    kept = json.loads(origin.read_text())
    assert kept["choices"] == {"tied": True, "bias": BIAS}
    del kept["choices"]
    origin.write_text(json.dumps(kept))
    with pytest.raises(UserError, match=r"does not keep what the import found out \('tied'\)"):
        export(tmp_path / "run", tmp_path / "not")


def test_a_run_without_a_tokenizer_is_verified(tmp_path):
    vit = published.vit(tmp_path / "vit")
    import_checkpoint(vit, tmp_path / "run")
    found = differences(tmp_path / "run", vit)
    assert len(found) == len(open_tensors(vit))
    assert not any(d.largest for d in found)


def test_openais_clip_goes_back_with_a_config(tmp_path):
    """Without it nothing would say that these tensors are QuickGELU's."""
    clip = openai_clip.checkpoint(tmp_path / "clip")
    run = import_checkpoint(clip, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "back")
    names = {path.name for path in (tmp_path / "back").iterdir()}
    config = "open_clip_config.json"
    assert names == {"open_clip_model.safetensors", config, openai_clip.MERGES_FILE, "README.md"}
    told = json.loads((tmp_path / "back" / config).read_text())["model_cfg"]
    assert told == {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": dict(image_size=16, layers=1, width=64, head_width=64, patch_size=8),
        "text_cfg": dict(context_length=8, vocab_size=49_408, width=64, heads=1, layers=1),
    }
    again = import_checkpoint(tmp_path / "back", tmp_path / "again", image_size=32)
    assert again.config.model == run.config.model
    assert again.tokenizer.fingerprint == run.tokenizer.fingerprint
    assert {x.dtype for x in open_tensors(tmp_path / "back").values()} == {np.dtype("float16")}
    # Trained on for larger pictures, it takes the published names and says their size.
    export(tmp_path / "again", tmp_path / "larger")
    told = json.loads((tmp_path / "larger" / config).read_text())["model_cfg"]
    assert told["vision_cfg"]["image_size"] == 32
    assert import_checkpoint(tmp_path / "larger", tmp_path / "third").config.data.image_size == 32
    with gzip.open(tmp_path / "larger" / openai_clip.MERGES_FILE) as file:
        assert file.readline() == b"#version: 0.2\n"


def test_blips_vocabulary_in_a_pipeline_alone(tmp_path):
    """As newer versions of its library save it, with processor_config.json."""
    import tokenizers

    folder = blip_with(tmp_path / "blip")
    first = import_checkpoint(folder, tmp_path / "run")
    ids = wordpiece.vocabulary((folder / "vocab.txt").read_bytes())
    pieces = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
    pieces.add_special_tokens(["[DEC]", "[ENC]"])
    pieces.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").unlink()
    side = {"height": 32, "width": 32}
    pictures = {"image_processor_type": "BlipImageProcessor", "resample": 2, "size": side}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": pictures}))
    second = import_checkpoint(folder, tmp_path / "second")
    assert (
        second.tokenizer.encode("w9 [ENC]").tolist() == first.tokenizer.encode("w9 [ENC]").tolist()
    )
    assert second.tokenizer.special_tokens == first.tokenizer.special_tokens
    assert second.config.data.resize == "squash_bilinear"
    export(tmp_path / "second", tmp_path / "back")
    again = import_checkpoint(tmp_path / "back", tmp_path / "third")
    assert again.tokenizer.fingerprint == second.tokenizer.fingerprint
    assert again.config.data.resize == "squash_bilinear"
