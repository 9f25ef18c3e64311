"""CoCa as OpenCLIP publishes it, coca_ViT-B-32 and coca_ViT-L-14: `capjax.models.open_clip_coca`.

Where open_clip_config.json is missing, heads and activation are those of both published sizes.
"""

from __future__ import annotations

from typing import Any

from capjax.models.open_clip_coca import VARIANTS
from capjax.weights import open_clip
from capjax.weights.clip import VIT_TOWER, blocks
from capjax.weights.open_clip import FILE, HEAD_WIDTH
from capjax.weights.plan import Plan, Source
from capjax.weights.sizes import fixed_mlp, image_size, nearest, only
from capjax.weights.table import (
    Entry,
    linear,
    norm,
    same,
    torch_attention,
    transposed,
    vector,
)

FAMILY = "coca"


def _pooler(ours: str, theirs: str) -> list[Entry]:
    """A pooler whose queries are of another width than what it reads.

    torch.nn.MultiheadAttention keeps the kernels apart then, and the biases in one tensor.
    """
    attention, torch = f"{ours}/attention", f"{theirs}.attn"
    entries = [
        Entry(f"{attention}/{name}/kernel", f"{torch}.{name[0]}_proj_weight", transposed())
        for name in ("query", "key", "value")
    ]
    return [
        *entries,
        # The other entries of the following are for kernels that lie in one tensor.
        *torch_attention(attention, torch),
        Entry(f"{ours}/queries", f"{theirs}.query", same),
        *norm(f"{ours}/norm_queries", f"{theirs}.ln_q"),
    ]


def _cross_blocks() -> list[Entry]:
    ours = r"caption_decoder/stack/cross_blocks_(\d+)"
    theirs = r"text_decoder.cross_attn.\1"
    return [
        *norm(f"{ours}/norm_cross", f"{theirs}.ln_1"),
        *norm(f"{ours}/norm_context", f"{theirs}.ln_1_kv"),
        *torch_attention(f"{ours}/cross_attention", f"{theirs}.attn"),
        *norm(f"{ours}/norm_mlp", f"{theirs}.ln_2"),
        *linear(f"{ours}/mlp_in", f"{theirs}.mlp.c_fc"),
        *linear(f"{ours}/mlp_out", f"{theirs}.mlp.c_proj"),
    ]


_POOL = "visual.attn_pool"
TABLE = [
    Entry("logit_scale", "logit_scale", same),
    *VIT_TOWER,
    *norm("image_tower/stack/norm", f"{_POOL}.ln_k"),
    *_pooler("image_pooler", _POOL),
    *norm("image_pooler/norm", "visual.ln_post"),
    Entry("image_projection/kernel", "visual.proj", same),
    Entry("text_tower/embedding/embedding", "text.token_embedding.weight", same),
    Entry("text_tower/positions", "text.positional_embedding", same),
    Entry("text_tower/cls", "text.cls_emb", vector),
    *blocks("text_tower", "text.transformer"),
    *norm("text_tower/stack/norm", "text.ln_final"),
    Entry("text_projection/kernel", "text.text_projection", same),
    *blocks("caption_decoder", "text_decoder"),
    *_cross_blocks(),
    *norm("caption_decoder/stack/norm", "text_decoder.ln_final"),
    Entry("caption_decoder/head/kernel", "text_decoder.text_projection", same),
]

UNREAD = (r"(text|text_decoder)\.attn_mask",)  # constants that older files hold

_VISION = {"attentional_pool": True}
_TEXT = {"embed_cls": True, "correct_cls_mask": False}


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. Sizes are read off the tensors."""
    source.require("text.cls_emb", "text_decoder.text_projection", "visual.proj", f"{_POOL}.query")
    source.require(f"{_POOL}.attn.q_proj_weight", "visual.conv1.weight")
    config = open_clip.read(source)
    only(f"{FILE}, vision_cfg,", config.vision, _VISION)
    only(f"{FILE}, text_cfg,", config.text, _TEXT)
    decoder = config.model.get("multimodal_cfg", {})
    only(f"{FILE}, multimodal_cfg,", decoder, {"ls_init_value": None})
    image_width, _, patch_size, _ = source.shape("visual.conv1.weight")
    text_width, embedding_dim = source.shape("text.text_projection")
    for tower, width in (
        ("visual.transformer.resblocks.0", image_width),
        ("text.transformer.resblocks.0", text_width),
        ("text_decoder.resblocks.0", text_width),
        ("text_decoder.cross_attn.0", text_width),
    ):
        fixed_mlp(source, f"{tower}.mlp.c_fc.weight", width, "capjax.models.open_clip_coca")
    fields: dict[str, Any] = dict(
        patch_size=patch_size,
        image_layers=source.count("visual.transformer.resblocks.{}.ln_1.weight"),
        image_width=image_width,
        image_heads=config.image_heads(image_width),
        text_width=text_width,
        text_heads=config.text_heads(text_width),
        text_layers=source.count("text.transformer.resblocks.{}.ln_1.weight"),
        decoder_heads=decoder.get("heads", 8) if config.model else text_width // HEAD_WIDTH,
        decoder_layers=source.count("text_decoder.resblocks.{}.ln_1.weight"),
        embedding_dim=embedding_dim,
        queries=source.shape(f"{_POOL}.query")[0],
        pooler_heads=config.vision.get("attn_pooler_heads", 8),
        activation=config.activation,
    )
    # [CLS] has the last position.
    context = source.shape("text.positional_embedding")[0] - 1
    positions = source.shape("visual.positional_embedding")[0]
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.open_clip_coca", **nearest(VARIANTS, fields)),
        table=TABLE,
        unread=UNREAD,
        tokenizer=open_clip.tokenizer(source, context),
        image=config.image(image_size(positions - 1, patch_size)),
        task=dict(name="capjax.tasks.coca"),
        **({"file": open_clip.TENSORS} if config.model else {}),
    )
