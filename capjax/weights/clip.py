"""Names of CLIP's published state dicts, ViT and ResNet (github openai/CLIP, and OpenCLIP's)."""

from __future__ import annotations

from capjax.weights.table import (
    Entry,
    attention,
    batch_norm,
    convolution,
    kernel,
    linear,
    norm,
    patches,
    rows,
    same,
    torch_attention,
    vector,
)


def _blocks(ours: str, theirs: str) -> list[Entry]:
    block, theirs = rf"{ours}/stack/blocks_(\d+)", rf"{theirs}.resblocks.\1"
    return [
        *norm(f"{block}/norm_self", f"{theirs}.ln_1"),
        *torch_attention(f"{block}/self_attention", f"{theirs}.attn"),
        *norm(f"{block}/norm_mlp", f"{theirs}.ln_2"),
        *linear(f"{block}/mlp_in", f"{theirs}.mlp.c_fc"),
        *linear(f"{block}/mlp_out", f"{theirs}.mlp.c_proj"),
    ]


def _resnet_stage(stage: int) -> list[Entry]:
    block = rf"image_tower/stage_{stage}_block_(\d+)"
    theirs = rf"visual.layer{stage + 1}.\1"
    return [
        *kernel(rf"{block}/conv_(\d)", rf"{theirs}.conv\2", convolution),
        *batch_norm(rf"{block}/norm_(\d)", rf"{theirs}.bn\2"),
        *kernel(f"{block}/shortcut_conv", f"{theirs}.downsample.0", convolution),
        *batch_norm(f"{block}/shortcut_norm", f"{theirs}.downsample.1"),
    ]


TEXT = [
    Entry("text_tower/embedding/embedding", "token_embedding.weight", same),
    Entry("text_tower/positions", "positional_embedding", same),
    *_blocks("text_tower", "transformer"),
    *norm("text_tower/stack/norm", "ln_final"),
    Entry("text_projection/kernel", "text_projection", same),
    Entry("logit_scale", "logit_scale", same),
]

VIT = [
    *TEXT,
    Entry("image_tower/cls", "visual.class_embedding", vector),
    Entry("image_tower/positions", "visual.positional_embedding", rows),
    *kernel("image_tower/patch_embedding", "visual.conv1", patches),
    *norm("image_tower/pre_norm", "visual.ln_pre"),
    *_blocks("image_tower", "visual.transformer"),
    *norm("image_tower/stack/norm", "visual.ln_post"),
    Entry("image_projection/kernel", "visual.proj", same),
]

_POOL = "visual.attnpool"
RESNET = [
    *TEXT,
    *kernel(r"image_tower/stem_conv_(\d)", r"visual.conv\1", convolution),
    *batch_norm(r"image_tower/stem_norm_(\d)", r"visual.bn\1"),
    *[entry for stage in range(4) for entry in _resnet_stage(stage)],
    Entry("image_tower/pool/positions", f"{_POOL}.positional_embedding", same),
    *attention(
        "image_tower/pool/attention", *(f"{_POOL}.{name}_proj" for name in ("q", "k", "v", "c"))
    ),
]

# Sizes that the first releases kept as tensors, torch's step counters, and OpenCLIP's mask.
UNREAD = (
    "input_resolution",
    "context_length",
    "vocab_size",
    r".*\.num_batches_tracked",
    "attn_mask",
)
