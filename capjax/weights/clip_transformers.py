"""CLIP as the transformers library publishes it (`CLIPModel`), OpenAI's and others' alike."""

from __future__ import annotations

from typing import Any

from capjax.errors import UserError
from capjax.models.clip import SPECIAL_TOKENS
from capjax.weights import open_clip, preprocess
from capjax.weights.clip import variants
from capjax.weights.plan import Plan, Source
from capjax.weights.sizes import fixed_mlp, image_size, nearest, only
from capjax.weights.table import (
    Entry,
    attention,
    kernel,
    linear,
    norm,
    patches,
    rows,
    same,
    transposed,
    vector,
)

FAMILY = "clip_transformers"
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}


def blocks(tower: str, theirs: str) -> list[Entry]:
    """The blocks of a tower; SigLIP's have the same names."""
    block, theirs = rf"{tower}/stack/blocks_(\d+)", rf"{theirs}.encoder.layers.\1"
    projections = (f"{theirs}.self_attn.{name}_proj" for name in ("q", "k", "v", "out"))
    return [
        *norm(f"{block}/norm_self", f"{theirs}.layer_norm1"),
        *attention(f"{block}/self_attention", *projections),
        *norm(f"{block}/norm_mlp", f"{theirs}.layer_norm2"),
        *linear(f"{block}/mlp_in", f"{theirs}.mlp.fc1"),
        *linear(f"{block}/mlp_out", f"{theirs}.mlp.fc2"),
    ]


_IMAGE, _TEXT = "vision_model", "text_model"
TABLE = [
    Entry("logit_scale", "logit_scale", same),
    Entry("text_tower/embedding/embedding", f"{_TEXT}.embeddings.token_embedding.weight", same),
    Entry("text_tower/positions", f"{_TEXT}.embeddings.position_embedding.weight", same),
    *blocks("text_tower", _TEXT),
    *norm("text_tower/stack/norm", f"{_TEXT}.final_layer_norm"),
    *kernel("text_projection", "text_projection", transposed()),
    Entry("image_tower/cls", f"{_IMAGE}.embeddings.class_embedding", vector),
    Entry("image_tower/positions", f"{_IMAGE}.embeddings.position_embedding.weight", rows),
    *kernel("image_tower/patch_embedding", f"{_IMAGE}.embeddings.patch_embedding", patches),
    *norm("image_tower/pre_norm", f"{_IMAGE}.pre_layrnorm"),  # spelt so there
    *blocks("image_tower", _IMAGE),
    *norm("image_tower/stack/norm", f"{_IMAGE}.post_layernorm"),
    *kernel("image_projection", "visual_projection", transposed()),
]

UNREAD = (r".*\.position_ids",)  # a constant that older files hold


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. config.json is needed for the activation and the heads."""
    source.require_type("clip")
    source.require("text_projection.weight", "visual_projection.weight")
    source.require(f"{_IMAGE}.pre_layrnorm.weight")
    text, vision = sections(source, "CLIP")
    for name, section in (("text_config", text), ("vision_config", vision)):
        only(f"config.json, {name},", section, {"layer_norm_eps": 1e-5})
    _check_end(source, text)
    image_width, _, patch_size, _ = source.shape(f"{_IMAGE}.embeddings.patch_embedding.weight")
    embedding_dim, text_width = source.shape("text_projection.weight")
    for tower, width in ((_IMAGE, image_width), (_TEXT, text_width)):
        name = f"{tower}.encoder.layers.0.mlp.fc1.weight"
        fixed_mlp(source, name, width, "capjax.models.clip")
    fields = dict(
        image_layers=source.count(_IMAGE + ".encoder.layers.{}.layer_norm1.weight"),
        image_width=image_width,
        image_heads=vision.get("num_attention_heads", 12),
        patch_size=patch_size,
        text_layers=source.count(_TEXT + ".encoder.layers.{}.layer_norm1.weight"),
        text_width=text_width,
        text_heads=text.get("num_attention_heads", 8),
        embedding_dim=embedding_dim,
        activation=activation(text, vision, "quick_gelu"),
    )
    positions = source.shape(f"{_IMAGE}.embeddings.position_embedding.weight")[0]
    context = source.shape(f"{_TEXT}.embeddings.position_embedding.weight")[0]
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.clip", **nearest(variants(resnet=False), fields)),
        table=TABLE,
        unread=UNREAD,
        tokenizer=open_clip.tokenizer(source, context),
        image=image(source, image_size(positions - 1, patch_size), "crop", "CLIP"),
        task=dict(name="capjax.tasks.contrastive"),
    )


def sections(source: Source, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json's text_config and vision_config.

    Older files may hold text_config_dict as well, in whose place text_config is not read at all.
    """

    def section(name: str) -> dict[str, Any]:
        for field in (f"{name}_dict", name):
            if source.config.get(field) is not None:
                return source.config[field]
        raise UserError(f"this {model} needs its config.json with {name} beside the tensors")

    return section("text_config"), section("vision_config")


def activation(text: dict[str, Any], vision: dict[str, Any], default: str) -> str:
    """The one of both towers, in capjax's words; what is left out is the library's `default`."""
    names = text.get("hidden_act", default), vision.get("hidden_act", default)
    if names[0] not in ACTIVATIONS:
        raise UserError(
            f"config.json, text_config, says hidden_act={names[0]!r}, which capjax's model does "
            f"not have: it must be one of {', '.join(ACTIVATIONS)}"
        )
    if names[0] != names[1]:
        raise UserError(
            f"config.json says hidden_act={names[0]!r} for texts and {names[1]!r} for pictures, "
            "and capjax's model has one for both: choose another checkpoint"
        )
    return ACTIVATIONS[names[0]]


def image(source: Source, side: int, rule: str, pixels: str) -> dict[str, Any]:
    """`Plan.image`: by preprocessor_config.json, or `rule` if there is none.

    UserError where that file's size or pixels are not those of the model.
    """
    if not source.preprocessor:
        return dict(image_size=side, resize=rule)
    found = preprocess.from_config(source.preprocessor)
    for field, expected in (("image_size", side), ("pixels", pixels)):
        if found[field] != expected:
            raise UserError(
                f"preprocessor_config.json asks for {field}={found[field]!r}, and the model takes "
                f"{expected!r}: it belongs to another checkpoint"
            )
    return dict(image_size=side, resize=found["resize"])


def _check_end(source: Source, text: dict[str, Any]) -> None:
    """A text is read at its first EOS, CLIP's highest id; 2 stands for it in older files."""
    rows = source.shape(f"{_TEXT}.embeddings.token_embedding.weight")[0]
    last = min(rows - 1, SPECIAL_TOKENS.eos)
    found = text.get("eos_token_id", last)
    if found not in (2, last):
        raise UserError(
            f"config.json, text_config, says eos_token_id={found!r}, and CLIP's tokenizer ends "
            f"texts with {last}: choose another checkpoint"
        )
