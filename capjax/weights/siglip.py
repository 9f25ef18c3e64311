"""Names of SigLIP's state dicts as the transformers library publishes them."""

from __future__ import annotations

from capjax.weights.table import (
    Entry,
    attention,
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


def _blocks(tower: str, theirs: str) -> list[Entry]:
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
    Entry("logit_(scale|bias)", r"logit_\1", one_number),
    Entry("text_tower/embedding/embedding", f"{_TEXT}.embeddings.token_embedding.weight", same),
    Entry("text_tower/positions", f"{_TEXT}.embeddings.position_embedding.weight", same),
    *_blocks("text_tower", _TEXT),
    *norm("text_tower/stack/norm", f"{_TEXT}.final_layer_norm"),
    *linear("text_head", f"{_TEXT}.head"),
    *kernel("image_tower/patch_embedding", f"{_IMAGE}.embeddings.patch_embedding", patches),
    Entry("image_tower/patch_embedding/bias", f"{_IMAGE}.embeddings.patch_embedding.bias", same),
    Entry("image_tower/positions", f"{_IMAGE}.embeddings.position_embedding.weight", rows),
    *_blocks("image_tower", _IMAGE),
    *norm("image_tower/stack/norm", f"{_IMAGE}.post_layernorm"),
    Entry("image_head/probe", f"{_IMAGE}.head.probe", batch_of_rows),
    *torch_attention("image_head/attention", f"{_IMAGE}.head.attention"),
    *norm("image_head/norm", f"{_IMAGE}.head.layernorm"),
    *linear("image_head/mlp_in", f"{_IMAGE}.head.mlp.fc1"),
    *linear("image_head/mlp_out", f"{_IMAGE}.head.mlp.fc2"),
]

UNREAD = (r".*\.position_ids",)  # a constant that older files hold
