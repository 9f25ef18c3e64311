"""Rows of a batch placed where the parameters are, and results fetched: what evaluators and
decoders feed a model and get from it, in one process or in many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from capjax.parallel.mesh import batch_parts, batch_sharding, make_mesh


def put_rows(rows: np.ndarray, params: Any) -> jax.Array:
    """`rows` [B,...] split as batches are over the devices that hold `params`, or whole where B
    does not divide.

    Parameters without a mesh (a plain tree of arrays) leave the rows on the default device.
    """
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return jax.numpy.asarray(rows)
    mesh = sharding.mesh
    divides = len(rows) % batch_parts(mesh) == 0
    return jax.device_put(
        rows, batch_sharding(mesh) if divides else NamedSharding(mesh, PartitionSpec())
    )


def on_devices(params: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Parameters repeated on these devices (None: all of all processes), to split rows over them.

    Each process must hold the same ones.
    """
    mesh = make_mesh({"data": -1}, devices)
    if mesh.size == 1:
        return params
    whole = NamedSharding(mesh, PartitionSpec())
    if whole.is_fully_addressable:
        return jax.device_put(params, whole)

    def everywhere(array: jax.Array) -> jax.Array:
        here = np.asarray(array)
        return jax.make_array_from_callback(here.shape, whole, lambda index: here[index])

    return jax.tree.map(everywhere, params)


def get_rows(tree: Any) -> Any:
    """A tree of arrays as NumPy arrays, whole in every process.

    What other processes hold parts of is first sent to all: they must call this too.
    """
    arrays, rest = [], jax.tree.structure(tree)
    for array in jax.tree.leaves(tree):
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            if not array.is_fully_replicated:
                whole = NamedSharding(array.sharding.mesh, PartitionSpec())
                array = jax.jit(lambda x: x, out_shardings=whole)(array)
            array = array.addressable_data(0)
        arrays.append(array)
    return jax.tree.unflatten(rest, jax.device_get(arrays))
