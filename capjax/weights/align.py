"""Names of BERT's, EfficientNet's and ALIGN's state dicts as the transformers library has them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from capjax.weights.table import (
    Entry,
    Transform,
    attention,
    batch_norm,
    convolution,
    kernel,
    linear,
    norm,
    same,
)

# A convolution [O,I,1,1] that is a linear layer here.
_pointwise = Transform(convolution.read, lambda x: x.T[..., None, None])
# A scale is published as a temperature, its inverse.
_from_temperature = Transform(lambda sigma: -np.log(sigma), lambda scale: jnp.exp(-scale))


def bert(ours: str, theirs: str) -> list[Entry]:
    """A `Bert` and its counterpart, both given by the prefix of their names ("" or "x/", "x.")."""
    table, block = f"{theirs}embeddings", rf"{ours}stack/blocks_(\d+)"
    layer = rf"{theirs}encoder.layer.\1"
    read = (f"{layer}.attention.self.{name}" for name in ("query", "key", "value"))
    return [
        Entry(f"{ours}embedding/embedding", f"{table}.word_embeddings.weight", same),
        Entry(f"{ours}positions/embedding", f"{table}.position_embeddings.weight", same),
        Entry(f"{ours}segments/embedding", f"{table}.token_type_embeddings.weight", same),
        *norm(f"{ours}norm", f"{table}.LayerNorm"),
        *attention(f"{block}/self_attention", *read, f"{layer}.attention.output.dense"),
        *norm(f"{block}/norm_self", f"{layer}.attention.output.LayerNorm"),
        *linear(f"{block}/mlp_in", f"{layer}.intermediate.dense"),
        *linear(f"{block}/mlp_out", f"{layer}.output.dense"),
        *norm(f"{block}/norm_mlp", f"{layer}.output.LayerNorm"),
    ]


def efficientnet(ours: str, theirs: str) -> list[Entry]:
    """An `EfficientNet` and its counterpart, given as for `bert`."""
    block, layer = rf"{ours}block_(\d+)", rf"{theirs}encoder.blocks.\1"
    depthwise, squeeze = f"{layer}.depthwise_conv", f"{layer}.squeeze_excite"
    entries = []
    for name, conv, statistics in (
        (f"{ours}stem", f"{theirs}embeddings.convolution", f"{theirs}embeddings.batchnorm"),
        (f"{block}/expand", f"{layer}.expansion.expand_conv", f"{layer}.expansion.expand_bn"),
        (f"{block}/depthwise", f"{depthwise}.depthwise_conv", f"{depthwise}.depthwise_norm"),
        (f"{block}/project", f"{layer}.projection.project_conv", f"{layer}.projection.project_bn"),
    ):
        entries += kernel(f"{name}_conv", conv, convolution)
        entries += batch_norm(f"{name}_norm", statistics)
    for name, conv in ((f"{block}/squeeze", "reduce"), (f"{block}/excite", "expand")):
        entries += [
            *kernel(name, f"{squeeze}.{conv}", _pointwise),
            Entry(f"{name}/bias", f"{squeeze}.{conv}.bias", same),
        ]
    return entries


TABLE = [
    *efficientnet("image_tower/", "vision_model."),
    *bert("text_tower/", "text_model."),
    *linear("text_projection", "text_projection"),
    Entry("logit_scale", "temperature", _from_temperature),
]

# BERT's pooler, the classifier's convolution behind the last stage, and constants.
UNREAD = (
    r"(text_model\.)?pooler\..*",
    r"encoder\.top_.*",
    r".*\.num_batches_tracked",
    r".*\.position_ids",
)
