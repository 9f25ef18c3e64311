"""SigLIP and SigLIP 2 as big_vision publishes them: `.npz` files with Flax's own names.

    params/img/embedding/kernel                             [h,w,3,D]
    params/img/Transformer/encoderblock_0/LayerNorm_0/scale [D]       of each layer, or
    params/img/Transformer/encoderblock/LayerNorm_0/scale   [N,D]     of all N layers, stacked
    params/txt/Encoder_0/..., params/t, params/b            ...       the scale's log; the bias

Some files leave `params/` out. Attention's kernels have an axis of heads, as ours, so that all
sizes are read off the arrays. The models are those of `capjax.weights.siglip`.
"""

from __future__ import annotations

import math

from capjax.models.siglip import VARIANTS
from capjax.weights.plan import NotThisFamily, Plan, Source
from capjax.weights.siglip import TASK, resize_rule, shared, tokenizer
from capjax.weights.sizes import image_size, nearest
from capjax.weights.table import (
    Entry,
    Part,
    Transform,
    batch_of_rows,
    one_number,
    same,
)

FAMILY = "siglip_big_vision"

_MODULES = {
    "norm_self": "LayerNorm_0",
    "self_attention": "MultiHeadDotProductAttention_0",
    "norm_mlp": "LayerNorm_1",
    "mlp_in": "MlpBlock_0/Dense_0",
    "mlp_out": "MlpBlock_0/Dense_1",
}
# One layer of a stack keeps the layers' axis, along which the parts are joined again.
_layer = Transform(lambda x: x, lambda x: x[None])


def _square_patches(x):
    side = math.isqrt(len(x) // 3)
    return x.reshape(side, side, 3, -1)


_patches = Transform(lambda x: x, _square_patches)


def _all(ours: str, theirs: str) -> Entry:
    """Every parameter of a module, of the modules in it as well: they have the same names."""
    return Entry(f"{ours}/(.+)", rf"{theirs}/\1", same)


def _blocks(tower: str, theirs: str, layers: int) -> list[Entry]:
    """The blocks of a tower; `layers` of them are stacked, 0 where they are apart."""
    if not layers:
        return [
            Entry(rf"{tower}/stack/blocks_(\d+)/{name}/(.+)", rf"{theirs}_\1/{module}/\2", same)
            for name, module in _MODULES.items()
        ]
    return [
        Entry(f"{tower}/stack/blocks_{i}/{name}/(.+)", rf"{theirs}/{module}/\1", _layer,
              Part(i, layers))
        for i in range(layers)
        for name, module in _MODULES.items()
    ]  # fmt: skip


def table(prefix: str, layers: tuple[int, int]) -> list[Entry]:
    """`prefix` of all names, and how many layers of pictures and texts are stacked (0: none)."""
    image, text = f"{prefix}img", f"{prefix}txt"
    head = f"{image}/MAPHead_0"
    return [
        Entry("logit_scale", f"{prefix}t", one_number),
        Entry("logit_bias", f"{prefix}b", one_number),
        Entry("image_tower/patch_embedding/kernel", f"{image}/embedding/kernel", _patches),
        Entry("image_tower/patch_embedding/bias", f"{image}/embedding/bias", same),
        Entry("image_tower/positions", f"{image}/pos_embedding", batch_of_rows),
        *_blocks("image_tower", f"{image}/Transformer/encoderblock", layers[0]),
        _all("image_tower/stack/norm", f"{image}/Transformer/encoder_norm"),
        Entry("image_head/probe", f"{head}/probe", batch_of_rows),
        _all("image_head/attention", f"{head}/MultiHeadDotProductAttention_0"),
        _all("image_head/norm", f"{head}/LayerNorm_0"),
        _all("image_head/mlp_in", f"{head}/MlpBlock_0/Dense_0"),
        _all("image_head/mlp_out", f"{head}/MlpBlock_0/Dense_1"),
        Entry("text_tower/embedding/embedding", f"{text}/Embed_0/embedding", same),
        Entry("text_tower/positions", f"{text}/pos_embedding", batch_of_rows),
        *_blocks("text_tower", f"{text}/Encoder_0/encoderblock", layers[1]),
        _all("text_tower/stack/norm", f"{text}/Encoder_0/encoder_norm"),
        _all("text_head", f"{text}/head"),
    ]


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. No config is published beside the arrays, and none is needed."""
    prefix = "params/" if "params/t" in source.tensors else ""
    image, text = f"{prefix}img", f"{prefix}txt"
    source.require(f"{prefix}t", f"{prefix}b", f"{text}/Embed_0/embedding")
    source.require(f"{image}/embedding/kernel", f"{image}/MAPHead_0/probe", f"{text}/head/kernel")
    towers = (f"{image}/Transformer/encoderblock", f"{text}/Encoder_0/encoderblock")
    stacked = tuple(_stacked(source, tower) for tower in towers)
    sizes = [_sizes(source, tower, layers) for tower, layers in zip(towers, stacked, strict=True)]
    patch_size = source.shape(f"{image}/embedding/kernel")[0]
    fields = shared(sizes[1], sizes[0]) | dict(patch_size=patch_size, activation="gelu_tanh")
    vocabulary = source.shape(f"{text}/Embed_0/embedding")[0]
    context = source.shape(f"{text}/pos_embedding")[-2]
    side = image_size(source.shape(f"{image}/pos_embedding")[-2], patch_size)
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.siglip", **nearest(VARIANTS, fields)),
        table=table(prefix, stacked),
        tokenizer=tokenizer(source, vocabulary, context, "lower_ascii"),
        image=dict(image_size=side, resize=resize_rule(vocabulary)),
        task=TASK,
    )


def _stacked(source: Source, tower: str) -> int:
    """How many layers are stacked, 0 if each is by itself."""
    name = f"{tower}/LayerNorm_0/scale"
    return source.shape(name)[0] if name in source.tensors else 0


def _sizes(source: Source, tower: str, stacked: int) -> dict[str, int]:
    first = tower if stacked else f"{tower}_0"
    query = source.shape(f"{first}/MultiHeadDotProductAttention_0/query/kernel")
    if len(query) != (4 if stacked else 3):
        raise NotThisFamily(f"its kernel of queries in {first!r} has the shape {query}")
    return dict(
        layers=stacked or source.count(tower + "_{}/LayerNorm_0/scale"),
        width=query[-3],
        heads=query[-2],
        mlp_dim=source.shape(f"{first}/MlpBlock_0/Dense_0/kernel")[-1],
    )
