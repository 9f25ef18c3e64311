"""Vision Transformers with a class token: timm's and DeiT's files, and Hugging Face's ViT.

    timm           config.json holds `pretrained_cfg`: pixels, crop and filter
    DeiT           no config.json; ImageNet's pixels and a crop of 0.875 (arXiv 2012.12877)
    Hugging Face   model_type "vit", with or without "vit." before the names; its preprocessor

Relatives with other parts are refused by the tensor that gives them away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from capjax.data.resize import BICUBIC, BILINEAR, RULES
from capjax.errors import UserError
from capjax.models.image_encoder import PIXELS
from capjax.weights import preprocess
from capjax.weights.plan import NotThisFamily, Plan, Source
from capjax.weights.table import (
    Entry,
    Table,
    attention,
    fused_attention,
    kernel,
    linear,
    norm,
    patches,
    same,
)

FAMILY = "vit"
UNREAD = (r"(vit\.)?pooler\.dense\.(weight|bias)",)  # a tanh layer that no head reads
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_NOT_HERE = {
    "dist_token": "a distilled DeiT, with two class tokens; import the one without distillation",
    "reg_token": "register tokens",
    "norm_pre.weight": "a LayerNorm before the blocks",
    "fc_norm.weight": "a head that reads the mean of all tokens",
    "attn_pool.q.weight": "a head that pools by attention",
    "pre_logits.fc.weight": "a layer between class token and head",
    "blocks.0.ls1.gamma": "layers with a learned scale, as in DINOv2 and DeiT III",
    "blocks.0.gamma_1": "layers with a learned scale, as in DeiT III",
    "blocks.0.attn.q_norm.weight": "normalised queries and keys",
}
# Where a head is not 64 channels wide: so400m, huge, giant and gigantic.
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}


def timm_table(ours: str, theirs: str) -> Table:
    """A `ViT` and its counterpart, by the prefixes of their names ("image_tower/", "")."""
    block, layer = rf"{ours}stack/blocks_(\d+)", rf"{theirs}blocks.\1"
    return [
        *_embeddings(ours, f"{theirs}cls_token", f"{theirs}pos_embed", f"{theirs}patch_embed.proj"),
        *norm(f"{block}/norm_self", f"{layer}.norm1"),
        *fused_attention(f"{block}/self_attention", f"{layer}.attn.qkv", f"{layer}.attn.proj"),
        *norm(f"{block}/norm_mlp", f"{layer}.norm2"),
        *linear(f"{block}/mlp_in", f"{layer}.mlp.fc1"),
        *linear(f"{block}/mlp_out", f"{layer}.mlp.fc2"),
        *norm(f"{ours}stack/norm", f"{theirs}norm"),
    ]


def transformers_table(ours: str, theirs: str) -> Table:
    """As `timm_table`, with the names of Hugging Face's ViT ("image_tower/", "vit.")."""
    block, layer = rf"{ours}stack/blocks_(\d+)", rf"{theirs}encoder.layer.\1"
    table = f"{theirs}embeddings"
    read = (f"{layer}.attention.attention.{name}" for name in ("query", "key", "value"))
    return [
        *_embeddings(
            ours,
            f"{table}.cls_token",
            f"{table}.position_embeddings",
            f"{table}.patch_embeddings.projection",
        ),
        *norm(f"{block}/norm_self", f"{layer}.layernorm_before"),
        *attention(f"{block}/self_attention", *read, f"{layer}.attention.output.dense"),
        *norm(f"{block}/norm_mlp", f"{layer}.layernorm_after"),
        *linear(f"{block}/mlp_in", f"{layer}.intermediate.dense"),
        *linear(f"{block}/mlp_out", f"{layer}.output.dense"),
        *norm(f"{ours}stack/norm", f"{theirs}layernorm"),
    ]


def _embeddings(ours: str, cls: str, positions: str, patch: str) -> list[Entry]:
    return [
        Entry(f"{ours}cls", cls, same),
        Entry(f"{ours}positions", positions, same),
        *kernel(f"{ours}patch_embedding", patch, patches),
        Entry(f"{ours}patch_embedding/bias", f"{patch}.bias", same),
    ]


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. There is no task: an image encoder reads no captions."""
    if source.config.get("model_type") == "deit":
        raise NotThisFamily(f"it is {_NOT_HERE['dist_token']}")
    source.require_type("vit")
    if "blocks.0.attn.qkv.weight" in source.tensors:
        return _timm(source)
    return _transformers(source)


def _timm(source: Source) -> Plan:
    for name, what in _NOT_HERE.items():
        if name in source.tensors:
            raise NotThisFamily(f"its tensor {name!r} says that it is or has {what}")
    source.require("cls_token")
    pool = source.config.get("global_pool", "token")
    if pool not in ("token", ""):
        raise NotThisFamily(f"its global_pool is {pool!r}, not 'token'")
    fields, side = _sizes(source, "pos_embed", "patch_embed.proj", "blocks.{}.norm1.weight")
    options = source.config.get("model_args", {})
    fields |= dict(
        heads=options.get("num_heads") or _usual_heads(fields["width"]),
        mlp_dim=source.shape("blocks.0.mlp.fc1.weight")[0],
        epsilon=1e-6,
        activation=activation("ViT", options, "act_layer"),
    )
    given = source.config.get("pretrained_cfg")
    rule, pixels = ("crop_0.875", "imagenet") if given is None else _timm_pictures(given)
    classes = ("head.weight", linear("head", "head"))
    return _plan(source, timm_table("image_tower/", ""), fields, side, rule, pixels, classes)


def _transformers(source: Source) -> Plan:
    prefix = "vit." if "vit.embeddings.cls_token" in source.tensors else ""
    source.require(f"{prefix}embeddings.cls_token", f"{prefix}layernorm.weight")
    config = source.config
    if not config.get("qkv_bias", True):
        raise UserError("a ViT with qkv_bias=False is not supported: its attention needs biases")
    table, layer = f"{prefix}embeddings", f"{prefix}encoder.layer"
    fields, side = _sizes(
        source,
        f"{table}.position_embeddings",
        f"{table}.patch_embeddings.projection",
        layer + ".{}.layernorm_before.weight",
    )
    fields |= dict(
        heads=config.get("num_attention_heads") or _usual_heads(fields["width"]),
        mlp_dim=source.shape(f"{layer}.0.intermediate.dense.weight")[0],
        epsilon=config.get("layer_norm_eps", 1e-12),
        activation=activation("ViT", config),
    )
    rule, pixels = "squash_bilinear", "half"
    if source.preprocessor:
        rule, pixels = pictures(source, side)
    classes = ("classifier.weight", linear("head", "classifier"))
    ours = transformers_table("image_tower/", prefix)
    return _plan(source, ours, fields, side, rule, pixels, classes)


def _plan(
    source: Source,
    table: Table,
    fields: dict[str, Any],
    side: int,
    rule: str,
    pixels: str,
    head: tuple[str, Table],
) -> Plan:
    """`head`: the tensor whose rows are the classes, if it is there, and its entries."""
    classes = source.shape(head[0])[0] if head[0] in source.tensors else 0
    overrides = fields | {"pixels": pixels, "classes": classes}
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.image_encoder", variant="ViT-B/16", overrides=overrides),
        table=[*table, *head[1]],
        unread=UNREAD,
        image=dict(image_size=side, resize=rule),
    )


def _sizes(source: Source, positions: str, patch: str, layer: str) -> tuple[dict[str, Any], int]:
    """(layers, width and patch_size, the picture's side in pixels)."""
    width, channels, patch_size, _ = source.shape(f"{patch}.weight")
    tokens = source.shape(positions)[1] - 1
    side = math.isqrt(max(tokens, 0))
    if channels != 3 or side * side != tokens:
        raise NotThisFamily(
            f"its {tokens + 1} positions are not a class token and a square of patches of pictures "
            f"with 3 channels (it has {channels})"
        )
    fields = dict(layers=source.count(layer), width=width, patch_size=patch_size)
    return fields, side * patch_size


def _usual_heads(width: int) -> int:
    """Of the published models of this width, where config.json does not say it."""
    if width not in _HEADS and width % 64:
        raise UserError(
            f"the number of heads of a ViT of width {width} is not known: give it in config.json "
            "(model_args.num_heads for timm, num_attention_heads for Hugging Face)"
        )
    return _HEADS.get(width, width // 64)


def activation(what: str, config: Mapping[str, Any], field: str = "hidden_act") -> str:
    """Our name of the activation that a config names; UserError for one that is not here."""
    name = config.get(field, "gelu")
    if name not in _ACTIVATIONS:
        raise UserError(
            f"a {what} with {field}={name!r} is not supported: it must be one of "
            f"{', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[name]


def pictures(source: Source, side: int) -> tuple[str, str]:
    """(resize rule, pixels) of preprocessor_config.json; UserError if its size is not `side`."""
    found = preprocess.from_config(source.preprocessor)
    if found["image_size"] != side:
        raise UserError(
            f"preprocessor_config.json makes pictures of {found['image_size']} pixels and the "
            f"positions are those of {side}: mend the file that is wrong"
        )
    return found["resize"], found["pixels"].lower()


def _timm_pictures(given: Mapping[str, Any]) -> tuple[str, str]:
    """(resize rule, pixels) of timm's `pretrained_cfg`; what it leaves out has timm's default."""
    mean, deviation = (given.get(field, (0.5,) * 3) for field in ("mean", "std"))
    pixels = [name for name, known in PIXELS.items() if np.allclose((mean, deviation), known)]
    if not pixels:
        raise UserError(
            f"pretrained_cfg.mean={mean} with std={deviation} is none of {', '.join(PIXELS)}: "
            "add these pixels to capjax.models.pixels"
        )
    share, mode = given.get("crop_pct", 0.9), given.get("crop_mode", "center")
    keeps = {"center": True, "squash": False}.get(mode)
    filter = {"bicubic": BICUBIC, "bilinear": BILINEAR}.get(given.get("interpolation", "bicubic"))
    for name, rule in RULES.items():
        # A square is resized to the same by either way of rounding a margin that it has not.
        rounds = rule.rounds_margin or (not keeps and share == 1)
        if rounds and (rule.keeps_aspect, rule.filter, rule.share) == (keeps, filter, share):
            return name, pixels[0]
    raise UserError(
        f"pretrained_cfg with crop_pct={share}, crop_mode={mode!r} and "
        f"interpolation={given.get('interpolation', 'bicubic')!r} is none of the resize rules "
        f"{', '.join(RULES)}"
    )
