"""From a checkpoint's sizes to a named variant of a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from capjax.errors import UserError
from capjax.weights.plan import Source


def nearest(variants: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """config.model's `variant` and `overrides`: the variant that shares the most of `fields`.

    The overrides are those fields that differ; any that are not given are the variant's.
    """

    def differing(name: str) -> dict[str, Any]:
        given = dataclasses.asdict(variants[name])
        return {field: value for field, value in fields.items() if given[field] != value}

    variant = min(variants, key=lambda name: len(differing(name)))
    return dict(variant=variant, overrides=differing(variant))


def image_size(patches: int, patch_size: int) -> int:
    """The side in pixels of a square that is cut into this many patches."""
    side = math.isqrt(patches)
    if side * side != patches:
        raise UserError(
            f"the checkpoint has positions for {patches} patches, which make no square: capjax's "
            "image towers take square pictures alone"
        )
    return side * patch_size


def fixed_mlp(source: Source, name: str, width: int, inside: str) -> None:
    """UserError unless the MLP whose first layer has this name is four times as wide as it reads.

    `inside` says which model cannot have another.
    """
    mlp_dim = source.shape(name)[0]
    if mlp_dim != 4 * width:
        raise UserError(
            f"the MLP {name!r} is {mlp_dim} wide, not four times {width}, and {inside} has no "
            "other: choose a checkpoint with that ratio"
        )


def only(where: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """UserError for a field of a config that is there with another value than the expected one."""
    for field, value in expected.items():
        if given.get(field, value) != value:
            raise UserError(
                f"{where} says {field}={given[field]!r}, and capjax's model has {field}={value!r}: "
                "choose another checkpoint"
            )
