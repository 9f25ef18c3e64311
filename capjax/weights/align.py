"""Names of EfficientNet's and ALIGN's state dicts as the transformers library has them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from capjax.weights.bert import bert
from capjax.weights.table import (
    Entry,
    Transform,
    batch_norm,
    convolution,
    kernel,
    linear,
    same,
)

# A convolution [O,I,1,1] that is a linear layer here.
_pointwise = Transform(convolution.read, lambda x: x.T[..., None, None])
# A scale is published as a temperature, its inverse.
_from_temperature = Transform(lambda sigma: -np.log(sigma), lambda scale: jnp.exp(-scale))


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
