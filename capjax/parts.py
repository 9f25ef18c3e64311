"""Parts of a model that start from parts of other runs: `config.init_parts`.

    config.init_parts = dict(image_tower="runs/clip", language_model="runs/gpt2")

takes the parameters under `image_tower/` from the run runs/clip and those under `language_model/`
from runs/gpt2; "runs/siglip:image_head" names a part that is called otherwise there. What the
model has beyond them (a new cross-attention, LoRA) starts as the model makes it. Pictures of
another size are no obstacle: positions are resampled.

Raises `UserError` for a part that is not there or does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from capjax import runs
from capjax.checkpoint import Checkpoints
from capjax.errors import UserError
from capjax.weights.adapt import fit


def load_parts(parts: Mapping[str, str], abstract: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Parameters by path, laid out as `abstract` says (shapes, types and shardings)."""
    wanted = flatten_dict(dict(abstract), sep="/")
    found: dict[str, jax.Array] = {}
    for ours, where in parts.items():
        directory, _, theirs = where.partition(":")
        found |= _part(ours, Path(directory), theirs or ours, wanted)
    return found


def replaced(params: Mapping[str, Any], found: Mapping[str, jax.Array]) -> dict[str, Any]:
    """The parameters with those that were found in place of their own."""
    return unflatten_dict(flatten_dict(dict(params), sep="/") | dict(found), sep="/")


def _part(
    ours: str, directory: Path, theirs: str, wanted: Mapping[str, Any]
) -> dict[str, jax.Array]:
    with Checkpoints(directory / runs.CHECKPOINTS) as checkpoints:
        step = checkpoints.latest
        if step is None:
            raise UserError(f"the run {str(directory)!r} has no checkpoint yet: train it first")
        saved = checkpoints.shapes(step)
        names = {name: _renamed(name, theirs, ours) for name in saved if _under(name, theirs)}
        if not names:
            parts = sorted({name.split("/")[0] for name in saved})
            raise UserError(
                f"config.init_parts.{ours}: the run {str(directory)!r} has no part {theirs!r}; it "
                f"has {', '.join(parts)}"
            )
        extra = sorted(name for name, path in names.items() if path not in wanted)
        if extra:
            raise UserError(
                f"config.init_parts.{ours}: the model has no parameter {names[extra[0]]!r} for "
                f"{extra[0]!r} of {str(directory)!r}: choose the options of its model"
            )
        abstract = {name: _laid_out(saved[name], wanted[path]) for name, path in names.items()}
        values = checkpoints.restore_some(unflatten_dict(abstract, sep="/"), step)
    values = flatten_dict(values, sep="/")
    return {
        path: _fitted(f"config.init_parts.{ours}", path, values[name], wanted[path])
        for name, path in names.items()
    }


def _under(name: str, part: str) -> bool:
    return name == part or name.startswith(part + "/")


def _renamed(name: str, theirs: str, ours: str) -> str:
    return ours + name.removeprefix(theirs)


def _laid_out(saved: Any, wanted: Any) -> jax.ShapeDtypeStruct:
    """As the model wants it; whole on one device where it has another shape there."""
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    sharding = wanted.sharding if tuple(saved.shape) == tuple(wanted.shape) else first
    return jax.ShapeDtypeStruct(saved.shape, wanted.dtype, sharding=sharding)


def _fitted(where: str, path: str, value: jax.Array, wanted: Any) -> jax.Array:
    if value.shape == wanted.shape:
        return value
    found = fit(path, np.asarray(value), wanted.shape)
    if found is None:
        raise UserError(
            f"{where}: the parameter {path!r} has the shape {value.shape} there and "
            f"{wanted.shape} in the config: choose the sizes of its model"
        )
    return jax.device_put(np.asarray(found, wanted.dtype), wanted.sharding)
