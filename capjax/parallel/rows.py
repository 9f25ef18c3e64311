"""Rows of a batch placed where the parameters are: what evaluators and decoders feed a model."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


def put_rows(rows: np.ndarray, params: Any) -> jax.Array:
    """`rows` [B,...] split over all devices that hold `params`, or whole where B does not divide.

    Parameters without a mesh (a plain tree of arrays) leave the rows on the default device.
    """
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return jax.numpy.asarray(rows)
    mesh = sharding.mesh
    divides = len(rows) % mesh.size == 0
    spec = PartitionSpec(mesh.axis_names) if divides else PartitionSpec()
    return jax.device_put(rows, NamedSharding(mesh, spec))
