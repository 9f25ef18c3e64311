"""SigLIP, and SigLIP 2 at a fixed picture size, as the transformers library publishes both.

They are one architecture: what tells them apart is the vocabulary, which is Gemma's in SigLIP 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capjax.errors import UserError
from capjax.models.siglip import VARIANTS
from capjax.weights.clip_transformers import activation, blocks, image, sections
from capjax.weights.plan import Plan, Source
from capjax.weights.sizes import image_size, nearest, only
from capjax.weights.table import (
    Entry,
    batch_of_rows,
    kernel,
    linear,
    norm,
    one_number,
    patches,
    rows,
    same,
    torch_attention,
)

FAMILY = "siglip"

_IMAGE, _TEXT = "vision_model", "text_model"
TABLE = [
    Entry("logit_(scale|bias)", r"logit_\1", one_number),
    Entry("text_tower/embedding/embedding", f"{_TEXT}.embeddings.token_embedding.weight", same),
    Entry("text_tower/positions", f"{_TEXT}.embeddings.position_embedding.weight", same),
    *blocks("text_tower", _TEXT),
    *norm("text_tower/stack/norm", f"{_TEXT}.final_layer_norm"),
    *linear("text_head", f"{_TEXT}.head"),
    *kernel("image_tower/patch_embedding", f"{_IMAGE}.embeddings.patch_embedding", patches),
    Entry("image_tower/patch_embedding/bias", f"{_IMAGE}.embeddings.patch_embedding.bias", same),
    Entry("image_tower/positions", f"{_IMAGE}.embeddings.position_embedding.weight", rows),
    *blocks("image_tower", _IMAGE),
    *norm("image_tower/stack/norm", f"{_IMAGE}.post_layernorm"),
    Entry("image_head/probe", f"{_IMAGE}.head.probe", batch_of_rows),
    *torch_attention("image_head/attention", f"{_IMAGE}.head.attention"),
    *norm("image_head/norm", f"{_IMAGE}.head.layernorm"),
    *linear("image_head/mlp_in", f"{_IMAGE}.head.mlp.fc1"),
    *linear("image_head/mlp_out", f"{_IMAGE}.head.mlp.fc2"),
]

UNREAD = (r".*\.position_ids",)  # a constant that older files hold

GEMMA_VOCABULARY = 256_000
TASK = dict(name="capjax.tasks.contrastive", loss="sigmoid", max_scale=0.0)
_HEAD = f"{_IMAGE}.head.attention.in_proj_weight"


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. config.json is needed: heads cannot be read off the tensors."""
    if source.config.get("model_type") == "siglip2":
        raise UserError(
            "this is SigLIP 2's NaFlex model, whose pictures keep their shape, which capjax has "
            "not: choose one of a fixed size, such as google/siglip2-base-patch16-256"
        )
    source.require_type("siglip")
    source.require("logit_bias", "text_model.head.weight", _HEAD)
    text, vision = sections(source, "SigLIP")
    for name, section in (("text_config", text), ("vision_config", vision)):
        only(f"config.json, {name},", section, {"layer_norm_eps": 1e-6})
    sizes = [_sizes(source, tower, section) for tower, section in ((_TEXT, text), (_IMAGE, vision))]
    patch_size = source.shape(f"{_IMAGE}.embeddings.patch_embedding.weight")[-1]
    fields = shared(*sizes) | dict(
        patch_size=patch_size, activation=activation(text, vision, "gelu_pytorch_tanh")
    )
    positions = source.shape(f"{_IMAGE}.embeddings.position_embedding.weight")[0]
    vocabulary = source.shape(f"{_TEXT}.embeddings.token_embedding.weight")[0]
    context = source.shape(f"{_TEXT}.embeddings.position_embedding.weight")[0]
    rule = resize_rule(vocabulary)
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.siglip", **nearest(VARIANTS, fields)),
        table=TABLE,
        unread=UNREAD,
        tokenizer=tokenizer(source, vocabulary, context, "lower_without_punctuation"),
        image=image(source, image_size(positions, patch_size), rule, "HALF"),
        task=TASK,
    )


def _sizes(source: Source, tower: str, section: Mapping[str, Any]) -> dict[str, Any]:
    layer = f"{tower}.encoder.layers"
    mlp_dim, width = source.shape(f"{layer}.0.mlp.fc1.weight")
    return dict(
        layers=source.count(layer + ".{}.layer_norm1.weight"),
        width=width,
        heads=section.get("num_attention_heads", 12),
        mlp_dim=mlp_dim,
    )


def shared(text: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of both towers; UserError if they differ."""
    for field, value in text.items():
        if image[field] != value:
            raise UserError(
                f"this SigLIP's towers differ, {field}={value} for texts and {image[field]} for "
                "pictures, and those of capjax.models.siglip have the same sizes: choose another "
                "checkpoint"
            )
    return dict(text)


def resize_rule(vocabulary: int) -> str:
    """That of the publication: both squash, SigLIP 2 with bilinear interpolation."""
    return "squash_bilinear" if vocabulary == GEMMA_VOCABULARY else "squash"


def tokenizer(source: Source, vocabulary: int, context: int, clean: str) -> dict[str, Any]:
    """`Plan.tokenizer`; `clean` is what was done to texts before SigLIP 2 lowered them."""
    fields = dict(name="capjax.data.sentencepiece_file", max_length=context)
    if vocabulary == GEMMA_VOCABULARY:
        path = source.file("gemma_tokenizer.model", "tokenizer.model")
        return fields | dict(path=str(path), clean="lower", pad="<pad>")
    path = source.file("spiece.model", "sentencepiece.model")
    return fields | dict(path=str(path), clean=clean)
