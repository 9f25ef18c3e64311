"""BLIP's captioner as the transformers library publishes it (`BlipForConditionalGeneration`).

The embedding has two rows more than BERT's vocabulary: [DEC], which begins a caption, and [ENC],
which no captioner uses. Pictures are squashed to a square.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from capjax.data import wordpiece
from capjax.data.token_rows import read_model
from capjax.errors import UserError
from capjax.models.blip import VARIANTS
from capjax.weights.align import bert
from capjax.weights.plan import NotThisFamily, Plan, Source
from capjax.weights.sizes import image_size, nearest
from capjax.weights.table import (
    Entry,
    attention,
    fused_attention,
    kernel,
    linear,
    norm,
    patches,
    same,
    transposed,
)
from capjax.weights.tokenizer_files import new_words
from capjax.weights.vit import activation, pictures

FAMILY = "blip"
CAPTIONER, MATCHER = "BlipForConditionalGeneration", "BlipForImageTextRetrieval"
EXTRA_TOKENS = ["[DEC]", "[ENC]"]
MAX_LENGTH = 40  # of the captions that BLIP was trained on

VISION = "vision_model"
_TEXT, _HEAD = "text_decoder.bert", "text_decoder.cls.predictions"
_WORDS = f"{_TEXT}.embeddings.word_embeddings.weight"
_WRITE = f"{_HEAD}.decoder.weight"
# Two names of one vector, the second of which is computed with. Newer files have the first alone.
_BIASES = (f"{_HEAD}.bias", f"{_HEAD}.decoder.bias")


def vision_table() -> list[Entry]:
    """`blip.vit` and its counterpart."""
    block, layer = r"image_tower/stack/blocks_(\d+)", rf"{VISION}.encoder.layers.\1"
    fused = (f"{layer}.self_attn.qkv", f"{layer}.self_attn.projection")
    return [
        Entry("image_tower/cls", f"{VISION}.embeddings.class_embedding", same),
        Entry("image_tower/positions", f"{VISION}.embeddings.position_embedding", same),
        *kernel("image_tower/patch_embedding", f"{VISION}.embeddings.patch_embedding", patches),
        Entry(
            "image_tower/patch_embedding/bias", f"{VISION}.embeddings.patch_embedding.bias", same
        ),
        *norm(f"{block}/norm_self", f"{layer}.layer_norm1"),
        *fused_attention(f"{block}/self_attention", *fused),
        *norm(f"{block}/norm_mlp", f"{layer}.layer_norm2"),
        *linear(f"{block}/mlp_in", f"{layer}.mlp.fc1"),
        *linear(f"{block}/mlp_out", f"{layer}.mlp.fc2"),
        *norm("image_tower/stack/norm", f"{VISION}.post_layernorm"),
    ]


def text_table(ours: str, theirs: str) -> list[Entry]:
    """`blip.TextBlocks` and their counterpart, both given by name."""
    block, layer = rf"{ours}/stack/blocks_(\d+)", rf"{theirs}.encoder.layer.\1.crossattention"
    read = (f"{layer}.self.{name}" for name in ("query", "key", "value"))
    return [
        *bert(f"{ours}/", f"{theirs}."),
        *attention(f"{block}/cross_attention", *read, f"{layer}.output.dense"),
        *norm(f"{block}/norm_cross", f"{layer}.output.LayerNorm"),
    ]


def _text(bias: str) -> list[Entry]:
    return [
        *text_table("text_decoder", _TEXT),
        *linear("text_decoder/head_in", f"{_HEAD}.transform.dense"),
        *norm("text_decoder/head_norm", f"{_HEAD}.transform.LayerNorm"),
        *kernel("text_decoder/head", f"{_HEAD}.decoder", transposed()),
        Entry("text_decoder/(head/bias|head_bias)", bias, same),
    ]


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. config.json is needed: heads cannot be read off the tensors."""
    source.require_type("blip")
    check_kind(source, CAPTIONER)
    source.require(_WORDS)
    vision, text = sections(source)
    choices = dict(
        tied=source.choose("tied", lambda: _tied(source, text)),
        bias=source.choose("bias", lambda: _bias(source)),
    )
    tied, bias = choices["tied"], choices["bias"]
    copies = {name: bias for name in _BIASES if name != bias} | ({_WRITE: _WORDS} if tied else {})
    fields = sizes(source, vision, text, _TEXT) | {"tied": tied}
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.blip", **nearest(VARIANTS, fields)),
        table=[*vision_table(), *_text(bias)],
        unread=(r".*\.position_ids", *(name.replace(".", r"\.") for name in copies)),
        choices=choices,
        copies=copies,
        tokenizer=_tokenizer(source, text)
        | {"max_length": min(MAX_LENGTH, fields["max_positions"] + 1)},
        image=image_section(source, fields["patch_size"]),
        task=dict(name="capjax.tasks.caption"),
    )


def sections(source: Source) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json's vision_config and text_config."""
    vision, text = source.config.get("vision_config"), source.config.get("text_config")
    if vision is None or text is None:
        raise UserError(
            "a BLIP checkpoint needs its config.json with vision_config and text_config beside it"
        )
    return vision, text


def image_section(source: Source, patch_size: int) -> dict[str, Any]:
    """The size of pictures by the positions, and the rule of preprocessor_config.json.

    Pixels are normalised by CLIP's statistics.
    """
    positions = source.shape(f"{VISION}.embeddings.position_embedding")[1]
    side = image_size(positions - 1, patch_size)
    if not source.preprocessor:
        return dict(image_size=side, resize="squash")
    rule, pixels = pictures(source, side)
    if pixels != "clip":
        raise UserError(
            f"a BLIP whose image_mean is that of {pixels!r} is not supported: only clip"
        )
    return dict(image_size=side, resize=rule)


def check_kind(source: Source, wanted: str) -> None:
    """Raises unless the BLIP is of the kind `wanted`, CAPTIONER or MATCHER.

    `NotThisFamily` for the other one of the two, UserError for those that are neither.
    """
    names = source.tensors
    matches = "itm_head.weight" in names
    reads = matches or any(name.startswith(("text_encoder.", "text_model.")) for name in names)
    writes = any(name.startswith("text_decoder.") for name in names)
    found = CAPTIONER if not reads else MATCHER if matches and not writes else ""
    if found == wanted or source.config.get("model_type") != "blip":
        source.require(f"{VISION}.embeddings.class_embedding")
        return
    if found:
        raise NotThisFamily(f"it is a {found}")
    architecture = (source.config.get("architectures") or ["with a text encoder"])[0]
    raise UserError(
        f"this BLIP ({architecture}) is no captioner and scores no pairs: import a {CAPTIONER}, "
        f"such as Salesforce/blip-image-captioning-base, or a {MATCHER}, such as "
        "Salesforce/blip-itm-base-coco"
    )


def _tied(source: Source, text: dict[str, Any]) -> bool:
    """Whether one embedding reads and writes: a file may hold it twice, or two that differ."""
    wanted = source.config.get("tie_word_embeddings", True) and text.get(
        "tie_word_embeddings", True
    )
    if not wanted or _WRITE not in source.tensors:
        return wanted
    return np.array_equal(source.tensors[_WRITE], source.tensors[_WORDS])


def _bias(source: Source) -> str:
    """The name of the head's bias to read, and to write."""
    there = [name for name in _BIASES if name in source.tensors]
    if len(there) == 2 and not np.array_equal(*(source.tensors[name] for name in there)):
        return there[1]
    return (there or _BIASES)[0]


def sizes(
    source: Source, vision: dict[str, Any], text: dict[str, Any], tensors: str
) -> dict[str, Any]:
    """Fields of the model's `Variant`; what config.json leaves out has the library's default.

    `tensors`: what the names of the text's tensors begin with.
    """
    image_layer, text_layer = f"{VISION}.encoder.layers", f"{tensors}.encoder.layer"
    image_width, _, patch_size, _ = source.shape(f"{VISION}.embeddings.patch_embedding.weight")
    positions, text_width = source.shape(f"{tensors}.embeddings.position_embeddings.weight")
    return dict(
        image_layers=source.count(image_layer + ".{}.layer_norm1.weight"),
        image_width=image_width,
        image_heads=vision.get("num_attention_heads", 12),
        image_mlp_dim=source.shape(f"{image_layer}.0.mlp.fc1.weight")[0],
        patch_size=patch_size,
        image_epsilon=vision.get("layer_norm_eps", 1e-5),
        image_activation=activation("BLIP", vision),
        text_layers=source.count(text_layer + ".{}.attention.self.query.weight"),
        text_width=text_width,
        text_heads=text.get("num_attention_heads", 8),
        text_mlp_dim=source.shape(f"{text_layer}.0.intermediate.dense.weight")[0],
        text_epsilon=text.get("layer_norm_eps", 1e-12),
        text_activation=activation("BLIP", text),
        max_positions=positions,
    )


def vocabulary(source: Source, rows: int) -> tuple[dict[str, Any], dict[str, int]]:
    """(config.tokenizer but for the ends and max_length, the id of each token).

    UserError unless there are as many tokens as `rows` of the embedding.
    """
    path = source.file("vocab.txt", "tokenizer.json")
    model, new = wordpiece.lines(read_model(path)), new_words(source)
    there = wordpiece.vocabulary(model)
    extra = EXTRA_TOKENS if len(there) < rows or there.keys() >= {*EXTRA_TOKENS} else []
    ids = wordpiece.vocabulary(model, [*extra, *new])
    if len(ids) != rows:
        raise UserError(
            f"the embedding has {rows} rows and {str(path)!r}, with {' and '.join(EXTRA_TOKENS)}, "
            f"{len(ids)} tokens: give the vocabulary that the checkpoint belongs to"
        )
    section = dict(name="capjax.data.wordpiece", path=str(path), extra_tokens=extra)
    return section | ({"new_words": new} if new else {}), ids


def _tokenizer(source: Source, text: dict[str, Any]) -> dict[str, Any]:
    """config.tokenizer, but for max_length; the ids in config.json must be those of its names."""
    rows = source.shape(_WORDS)[0]
    section, ids = vocabulary(source, rows)
    names = {number: name for name, number in ids.items()}
    special = {}
    for field, name, default in (("bos", "bos", 30_522), ("eos", "sep", 102), ("pad", "pad", 0)):
        number = text.get(f"{name}_token_id", default)
        if number not in names:
            raise UserError(
                f"text_config.{name}_token_id={number} is outside the vocabulary of {rows} tokens: "
                "mend config.json"
            )
        special[field] = names[number]
    if special["pad"] != wordpiece.PAD:
        raise UserError(
            f"text_config.pad_token_id={ids[special['pad']]} is {special['pad']!r} in "
            f"{section['path']!r}, not {wordpiece.PAD}: give the checkpoint's own vocabulary"
        )
    return section | {"bos": special["bos"], "eos": special["eos"]}
