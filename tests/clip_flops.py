"""Floating-point operations of CLIP with a Vision Transformer by a formula of its own.

What `capjax.flops` counts by tracing is held against it.

A product of [M,K] and [K,N] counts 2 M K N. Of a pair, forward:

    tower(T, D)  layers x (24 T D^2 + 4 T^2 D)
                 24 T D^2: query, key, value and output (8), MLP of width 4 D (16)
                 4 T^2 D: scores and weighted sums, between all positions, masked or not
    picture      2 N 3 P^2 D + tower(N + 1, D) + 2 D E
    text         tower(L, D) + 2 D E

A step of training is three times that: going back, each product has two of its size (one of them
less for the patches, since no pixel needs a gradient; it is counted all the same). Not counted are
what is no matrix product, the loss's matrix of cosines (2 B E a pair), the optimiser, and what
rematerialisation computes again: the count says what the model needs, not what a program does.

Letters: B batch, P side of a patch, N patches, T positions, L tokens, D width, E embedding width.
"""

from __future__ import annotations

from typing import NamedTuple

from capjax.errors import UserError
from capjax.models import clip, variants


class Flops(NamedTuple):
    """Operations of one pair, forward."""

    image: int
    text: int


def forward_flops(model: clip.Model) -> Flops:
    """Of one pair of the model's sizes; UserError where convolutions make up another count."""
    v = variants.resolve(
        "CLIP variant", clip.VARIANTS, model.variant, "overrides", dict(model.overrides)
    )
    if v.patch_size is None or v.stem != "patch":
        raise UserError(
            "operations are counted for Vision Transformers on patches, not for convolutions: "
            f"{model.variant} with stem={v.stem!r} has some; choose a ViT with stem='patch'"
        )
    patches = (model.image_size // v.patch_size) ** 2
    patch_embedding = 2 * patches * 3 * v.patch_size**2 * v.image_width
    length = model.max_length + bool(model.prefixes)
    return Flops(
        patch_embedding
        + _tower(v.image_layers, patches + 1, v.image_width)
        + 2 * v.image_width * v.embedding_dim,
        _tower(v.text_layers, length, v.text_width) + 2 * v.text_width * v.embedding_dim,
    )


def training_flops(model: clip.Model, batch: int) -> int:
    """Of one step of training with `batch` pairs."""
    return 3 * batch * sum(forward_flops(model))


def _tower(layers: int, length: int, width: int) -> int:
    return layers * (24 * length * width**2 + 4 * length**2 * width)
