"""The mesh of devices that one run uses, and where a batch lies on it.

Axes: `data` repeats the parameters and splits the batch; `fsdp` splits both (ZeRO stage 3,
Rajbhandari et al. 2020); `tensor` splits the heads and hidden layers of one example's computation
(Megatron-LM, Shoeybi et al. 2019) and repeats the batch. The batch is split over the first two, so
their product must divide it.

Raises `UserError` for a mesh that needs more devices than there are or does not divide the batch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from capjax.errors import UserError

# The order of the mesh: neighbours along the last axis talk the most.
AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh with `sizes` devices along each axis; one of them may be -1: all that are left.

    A mesh smaller than the machine uses its first devices. `devices` are those to use instead of
    all that there are.
    """
    unknown = [name for name in sizes if name not in AXES]
    if unknown:
        raise UserError(f"config.mesh has no axis {unknown[0]!r}; its axes are {', '.join(AXES)}")
    shape = [int(sizes.get(name, 1)) for name in AXES]
    if shape.count(-1) > 1 or any(n == 0 or n < -1 for n in shape):
        raise UserError(
            f"config.mesh={_show(shape)}: every axis needs 1 or more devices, one of them may be -1"
        )
    everywhere = devices is None
    devices = jax.devices() if everywhere else list(devices)
    fixed = int(np.prod([n for n in shape if n != -1]))
    if -1 in shape:
        if len(devices) % fixed:
            raise UserError(
                f"config.mesh={_show(shape)}: {fixed} does not divide the {len(devices)} devices"
            )
        shape[shape.index(-1)] = len(devices) // fixed
    count = int(np.prod(shape))
    if count > len(devices):
        raise UserError(
            f"config.mesh={_show(shape)} needs {count} devices, but there are {len(devices)}: make "
            "it smaller, or start more processes"
        )
    if everywhere and jax.process_count() > 1 and count != len(devices):
        raise UserError(
            f"config.mesh={_show(shape)} uses {count} of the {len(devices)} devices: with several "
            "processes it must use them all"
        )
    # Explicit axes, the default since JAX 0.9, would make linen's modules annotate every array.
    kinds = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(shape), AXES, axis_types=kinds, devices=devices[:count])


def batch_parts(mesh: Mesh) -> int:
    """How many parts a batch is split into."""
    return math.prod(mesh.shape[name] for name in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all batch axes, whole otherwise."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(mesh: Mesh, batch_size: int, accumulate_steps: int) -> None:
    """Raises UserError unless each device gets the same number of rows of each microbatch."""
    parts = batch_parts(mesh)
    if batch_size % (parts * accumulate_steps):
        raise UserError(
            f"a mesh of data x fsdp = {parts} with accumulate_steps={accumulate_steps} does not "
            f"divide batch_size={batch_size}: make it a multiple of {parts * accumulate_steps}"
        )


def input_share(mesh: Mesh) -> tuple[int, int]:
    """(i, n): this process reads part i of n of each batch.

    Processes that a `tensor` axis connects read the same part: the rows of a batch are repeated
    along it.
    """
    parts = np.arange(batch_parts(mesh)).repeat(mesh.shape["tensor"])
    held: dict[int, set[int]] = {}
    for part, device in zip(parts, mesh.devices.flat, strict=True):
        held.setdefault(device.process_index, set()).add(int(part))
    # In the order of the batch; on a TPU pod the rows of a process need not lie together.
    shares = sorted({tuple(sorted(own)) for own in held.values()})
    if len({len(own) for own in shares}) > 1 or sum(map(len, shares)) > batch_parts(mesh):
        raise UserError(
            f"config.mesh={_show(list(mesh.devices.shape))} gives some processes a part of the "
            "rows of others: choose a tensor axis that divides the devices of a process, or a "
            "multiple of them"
        )
    return shares.index(tuple(sorted(held[jax.process_index()]))), len(shares)


def put_batch(batch: Mapping[str, Any], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows of each array as one global array; what is not an array stays behind."""
    _, count = input_share(sharding.mesh)
    return {
        name: jax.make_array_from_process_local_data(
            sharding, value, (len(value) * count, *value.shape[1:])
        )
        for name, value in batch.items()
        if isinstance(value, np.ndarray)
    }


def enable_compile_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache."""
    if jax.config.jax_compilation_cache_dir:
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(home) / "capjax" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _show(shape: list[int]) -> str:
    return "{" + ", ".join(f"{name}: {n}" for name, n in zip(AXES, shape, strict=True)) + "}"
