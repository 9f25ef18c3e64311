"""Names of SigLIP's state dicts as the transformers library publishes them."""

from __future__ import annotations

from capjax.weights.table import (
    Entry,
    attention,
    convolution,
    fused_attention,
    layer_norm,
    linear,
    same,
)


def _blocks(tower: str, theirs: str) -> list[Entry]:
    block, theirs = rf"{tower}/stack/blocks_(\d+)", rf"{theirs}.encoder.layers.\1"
    projections = (f"{theirs}.self_attn.{name}_proj" for name in ("q", "k", "v", "out"))
    return [
        *layer_norm(f"{block}/norm_self", f"{theirs}.layer_norm1"),
        *attention(f"{block}/self_attention", *projections),
        *layer_norm(f"{block}/norm_mlp", f"{theirs}.layer_norm2"),
        *linear(f"{block}/mlp_in", f"{theirs}.mlp.fc1"),
        *linear(f"{block}/mlp_out", f"{theirs}.mlp.fc2"),
    ]


_IMAGE, _TEXT = "vision_model", "text_model"
TABLE = [
    Entry("logit_(scale|bias)", r"logit_\1", same),
    Entry("text_tower/embedding/embedding", f"{_TEXT}.embeddings.token_embedding.weight", same),
    Entry("text_tower/positions", f"{_TEXT}.embeddings.position_embedding.weight", same),
    *_blocks("text_tower", _TEXT),
    *layer_norm("text_tower/stack/norm", f"{_TEXT}.final_layer_norm"),
    *linear("text_head", f"{_TEXT}.head"),
    Entry(
        "image_tower/patch_embedding/kernel",
        f"{_IMAGE}.embeddings.patch_embedding.weight",
        convolution,
    ),
    Entry("image_tower/patch_embedding/bias", f"{_IMAGE}.embeddings.patch_embedding.bias", same),
    Entry("image_tower/positions", f"{_IMAGE}.embeddings.position_embedding.weight", same),
    *_blocks("image_tower", _IMAGE),
    *layer_norm("image_tower/stack/norm", f"{_IMAGE}.post_layernorm"),
    Entry("image_head/probe", f"{_IMAGE}.head.probe", same),
    *fused_attention("image_head/attention", f"{_IMAGE}.head.attention"),
    *layer_norm("image_head/norm", f"{_IMAGE}.head.layernorm"),
    *linear("image_head/mlp_in", f"{_IMAGE}.head.mlp.fc1"),
    *linear("image_head/mlp_out", f"{_IMAGE}.head.mlp.fc2"),
]

UNREAD = (r".*\.position_ids",)  # a constant that older files hold
