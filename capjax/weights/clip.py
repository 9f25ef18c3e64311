"""CLIP as openai/CLIP publishes it, ViT and ResNet, and as OpenCLIP does, by the same names.

What the tensors cannot tell is the activation, and a wrong one would go unnoticed: OpenAI's files
are QuickGELU's, OpenCLIP's have their open_clip_config.json, and one without it is refused.
"""

from __future__ import annotations

from typing import Any

from capjax.errors import UserError
from capjax.models.clip import VARIANTS, Variant
from capjax.models.clip_resnet import REDUCTION
from capjax.models.pixels import CLIP
from capjax.weights import open_clip
from capjax.weights.open_clip import HEAD_WIDTH
from capjax.weights.plan import Plan, Source
from capjax.weights.sizes import fixed_mlp, image_size, nearest, only
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

FAMILY = "clip"


def blocks(ours: str, theirs: str) -> list[Entry]:
    """The blocks of a tower, `stack` here and `resblocks` there; OpenCLIP's CoCa has them, too."""
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
    *blocks("text_tower", "transformer"),
    *norm("text_tower/stack/norm", "ln_final"),
    Entry("text_projection/kernel", "text_projection", same),
    Entry("logit_scale", "logit_scale", same),
]

# Of an image tower but for its last norm.
VIT_TOWER = [
    Entry("image_tower/cls", "visual.class_embedding", vector),
    Entry("image_tower/positions", "visual.positional_embedding", rows),
    *kernel("image_tower/patch_embedding", "visual.conv1", patches),
    *norm("image_tower/pre_norm", "visual.ln_pre"),
    *blocks("image_tower", "visual.transformer"),
]

VIT = [
    *TEXT,
    *VIT_TOWER,
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

# Of the first releases alone.
_OPENAI = "input_resolution"


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. Sizes are read off the tensors."""
    # No look at config.json: repositories hold it for the other form of CLIP, beside this one.
    source.require("token_embedding.weight", "text_projection", "visual.conv1.weight")
    resnet = "visual.class_embedding" not in source.tensors
    source.require("visual.attnpool.c_proj.weight" if resnet else "visual.proj")
    config = open_clip.read(source)
    only(f"{open_clip.FILE}, vision_cfg,", config.vision, {"attentional_pool": False})
    only(f"{open_clip.FILE}, text_cfg,", config.text, {"embed_cls": False})
    text_width, embedding_dim = source.shape("text_projection")
    fixed_mlp(source, "transformer.resblocks.0.mlp.c_fc.weight", text_width, "capjax.models.clip")
    fields, size = (_resnet if resnet else _vit)(source, config)
    fields |= dict(
        text_width=text_width,
        text_heads=config.text_heads(text_width),
        text_layers=source.count("transformer.resblocks.{}.ln_1.weight"),
        embedding_dim=embedding_dim,
        activation=_activation(source, config),
    )
    context = source.shape("positional_embedding")[0]
    files = {} if config.model else {open_clip.FILE: _described(source, fields, size, context)}
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.clip", **nearest(variants(resnet), fields)),
        table=RESNET if resnet else VIT,
        unread=UNREAD,
        tokenizer=open_clip.tokenizer(source, context),
        image=config.image(size),
        task=dict(name="capjax.tasks.contrastive"),
        file=open_clip.TENSORS,
        files=files,
    )


def variants(resnet: bool) -> dict[str, Variant]:
    """The named ones with a ResNet, or with a ViT."""
    return {name: v for name, v in VARIANTS.items() if (v.patch_size is None) == resnet}


def _activation(source: Source, config: open_clip.Config) -> str:
    if _OPENAI in source.tensors:
        if config.model and config.activation != "quick_gelu":
            raise UserError(
                f"the tensors are OpenAI's own, which were trained with QuickGELU, and "
                f"{open_clip.FILE} says quick_gelu=False: remove it, it is another checkpoint's"
            )
        return "quick_gelu"
    if not config.model:
        raise UserError(
            f"the tensors do not say whether this CLIP was trained with GELU or QuickGELU: put its "
            f"{open_clip.FILE} beside them"
        )
    return config.activation


def _described(source: Source, fields: dict[str, Any], size: int, context: int) -> dict[str, Any]:
    """The open_clip_config.json that OpenAI's files lack: without it nothing tells QuickGELU."""
    vision = dict(
        image_size=size,
        layers=fields["image_layers"],
        width=fields["image_width"],
        head_width=HEAD_WIDTH,
    )
    if fields["patch_size"]:
        vision["patch_size"] = fields["patch_size"]
    text = dict(
        context_length=context,
        vocab_size=source.shape("token_embedding.weight")[0],
        width=fields["text_width"],
        heads=fields["text_heads"],
        layers=fields["text_layers"],
    )
    model = dict(embed_dim=fields["embedding_dim"], vision_cfg=vision, text_cfg=text)
    pixels = dict(mean=CLIP.mean, std=CLIP.deviation)
    how = dict(interpolation="bicubic", resize_mode="shortest")
    return dict(model_cfg=model | {"quick_gelu": True}, preprocess_cfg=pixels | how)


def _vit(source: Source, config: open_clip.Config) -> tuple[dict[str, Any], int]:
    """(fields of the model's `Variant`, the side of its pictures)."""
    width, _, patch_size, _ = source.shape("visual.conv1.weight")
    block = "visual.transformer.resblocks"
    fixed_mlp(source, f"{block}.0.mlp.c_fc.weight", width, "capjax.models.clip")
    fields = dict(
        image_layers=source.count(block + ".{}.ln_1.weight"),
        image_width=width,
        image_heads=config.image_heads(width),
        patch_size=patch_size,
    )
    positions = source.shape("visual.positional_embedding")[0]
    return fields, image_size(positions - 1, patch_size)


def _resnet(source: Source, config: open_clip.Config) -> tuple[dict[str, Any], int]:
    positions, features = source.shape("visual.attnpool.positional_embedding")
    layers = (source.count(f"visual.layer{i}.{{}}.conv1.weight") for i in (1, 2, 3, 4))
    fields = dict(
        image_layers=tuple(layers),
        image_width=source.shape("visual.layer1.0.conv1.weight")[0],
        image_heads=config.image_heads(features),
        patch_size=None,
    )
    return fields, image_size(positions - 1, REDUCTION)
