"""Sizes in the exported JSON files, where a run has others than were published."""

import json

import peer_cases
import published
import pytest
from peer_weights import cases, publish

from capjax.data.resize import RULES
from capjax.weights import preprocess
from capjax.weights.exporting import export
from capjax.weights.importing import import_checkpoint
from capjax.weights.published_sizes import set_image_size, set_rows

S = 48
ORIGINAL = json.loads((peer_cases.TESTS / "weights" / "preprocessors.json").read_text())
PUBLISHED = {n: p["config"] for n, p in ORIGINAL["peers"].items() if "resize" not in p["config"]}
SQUARE = {"height": S, "width": S}


def after(tmp_path, name, contents):
    """The file `name` with these contents, once S is set."""
    (tmp_path / name).write_text(json.dumps(contents))
    set_image_size(tmp_path, S)
    return json.loads((tmp_path / name).read_text())


def test_a_timm_vit_at_another_size_goes_out_and_in(tmp_path):
    import_checkpoint(published.vit(tmp_path / "vit"), tmp_path / "run", image_size=S)
    export(tmp_path / "run", tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["model_args"] == {"num_heads": 4, "img_size": S}
    assert config["pretrained_cfg"]["input_size"] == [3, S, S]
    assert config["pretrained_cfg"]["crop_pct"] == 0.9
    again = import_checkpoint(tmp_path / "back", tmp_path / "again")
    assert again.config.data.image_size == S


def test_a_transformers_vit_at_another_size_goes_out_and_in(tmp_path):
    case = cases("vit")[2]
    publish(tmp_path, peer_cases.tensors(case), case["config"])
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "size": 32, "resample": 3})
    )
    first = import_checkpoint(tmp_path, tmp_path / "run", image_size=S)
    export(tmp_path / "run", tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config == case["config"] | {"image_size": S}
    again = import_checkpoint(tmp_path / "back", tmp_path / "again")
    assert again.config.data == first.config.data
    assert (first.config.data.image_size, first.config.data.resize) == (S, "squash")


def test_as_published_nothing_is_written_anew(tmp_path):
    vit = published.vit(tmp_path / "vit")
    import_checkpoint(vit, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "back")
    assert (tmp_path / "back" / "config.json").read_bytes() == (vit / "config.json").read_bytes()


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_preprocessing_by_the_same_rule(name):
    """Read again, the file has the rule and the pixels that it had, and S."""
    before = preprocess.from_config(PUBLISHED[name])
    changed = preprocess.with_size(PUBLISHED[name], S)
    assert preprocess.from_config(changed) == before | {"image_size": S}
    whole = preprocess.with_size({"image_processor": PUBLISHED[name], "processor_class": "X"}, S)
    assert whole == {"image_processor": changed, "processor_class": "X"}


def test_preprocessing_by_hand(tmp_path):
    clip = {"image_processor_type": "CLIPImageProcessor", "size": 224, "crop_size": 224}
    assert after(tmp_path, "preprocessor_config.json", clip) == clip | {
        "size": {"shortest_edge": S},
        "crop_size": SQUARE,
    }
    blip = {"image_processor_type": "BlipImageProcessor", "size": {"height": 384, "width": 384}}
    assert after(tmp_path, "preprocessor_config.json", blip) == blip | {"size": SQUARE}
    larger = RULES["squash_0.875"].resized(S)
    deit = {"image_processor_type": "DeiTImageProcessor"}
    assert after(tmp_path, "processor_config.json", {"image_processor": deit}) == {
        "image_processor": deit | {"size": {"height": larger, "width": larger}, "crop_size": SQUARE}
    }
    words_alone = {"processor_class": "BlipProcessor"}
    assert after(tmp_path, "processor_config.json", words_alone) == words_alone


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (
            {"vision_config": {"image_size": 32, "a": 1}},
            {"vision_config": {"image_size": S, "a": 1}},
        ),
        ({"vision_config": {}, "vision_config_dict": None}, {"vision_config": {"image_size": S}}),
        (
            {"vision_config": {"image_size": 32}, "vision_config_dict": {}},
            {"vision_config": {"image_size": S}, "vision_config_dict": {"image_size": S}},
        ),
        ({"model_type": "vit"}, {"model_type": "vit", "image_size": S}),
        (
            {"architecture": "vit", "input_size": [3, 32, 32]},
            {"architecture": "vit", "input_size": [3, S, S], "model_args": {"img_size": S}},
        ),
    ],
)
def test_the_model(before, expected, tmp_path):
    found = after(tmp_path, "config.json", before)
    assert {k: v for k, v in found.items() if v is not None} == expected


def test_open_clips_config(tmp_path):
    before = {"model_cfg": {"vision_cfg": {"image_size": 32, "width": 8}, "embed_dim": 4}}
    expected = {"model_cfg": {"vision_cfg": {"image_size": S, "width": 8}, "embed_dim": 4}}
    assert after(tmp_path, "open_clip_config.json", before) == expected
    pixels = {"preprocess_cfg": {"size": [32, 32], "mean": [0.5] * 3}}
    found = after(tmp_path, "open_clip_config.json", before | pixels)
    assert found == expected | {"preprocess_cfg": {"size": S, "mean": [0.5] * 3}}


def test_rows_lie_where_the_texts_are(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"vocab_size": 5, "n_head": 2}')
    set_rows(tmp_path, 7)
    assert json.loads(path.read_text()) == {"vocab_size": 7, "n_head": 2}
    path.write_text('{"text_config": {"vocab_size": 5}, "text_config_dict": null}')
    set_rows(tmp_path, 7)
    assert json.loads(path.read_text())["text_config"] == {"vocab_size": 7}
    assert "vocab_size" not in json.loads(path.read_text())
