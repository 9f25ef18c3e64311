"""Where activations lie: the batch over its axes, heads and hidden units over `tensor`.

Without being told, the compiler may split the features of an activation over fsdp as the next
kernel is, and gather the batch instead: the whole batch then passes through every device. So the
output of each linear layer, embedding and norm is pinned while a loss is traced, from outside: a
layer's features lie as its own kernel's outputs do, which the rules of `parallel.sharding` decided,
and models know nothing of meshes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

from capjax.parallel.mesh import BATCH_AXES, batch_parts
from capjax.parallel.sharding import named_leaves

_LINEAR = (nn.Dense, nn.DenseGeneral, nn.Conv)
_NORMS = (nn.LayerNorm, nn.RMSNorm)


@contextlib.contextmanager
def pinned(params: Any) -> Iterator[None]:
    """While the model of these parameters is traced herein, its activations lie as said above.

    `params` are shapes or arrays with shardings, whose mesh is in context (`jax.set_mesh`).
    """
    arrays = named_leaves(params)
    mesh = next(iter(arrays.values())).sharding.mesh
    if mesh.size == 1:
        yield
        return
    splits = {name: _split(array) for name, array in arrays.items()}
    parts = batch_parts(mesh)

    def pin(call, args, kwargs, context):
        y = call(*args, **kwargs)
        # Arrays [B,..] of two axes (pooled vectors) are small, and tables of positions look alike.
        if not isinstance(y, jax.Array) or y.ndim < 3 or y.shape[0] % parts:
            return y
        features = _features(context.module, context.method_name, splits)
        if features is None:
            return y
        rest = (None,) * (y.ndim - 1 - len(features))
        return jax.lax.with_sharding_constraint(y, PartitionSpec(BATCH_AXES, *rest, *features))

    with nn.intercept_methods(pin):
        yield


def _split(array: Any) -> tuple[str | None, ...]:
    """For each axis of the array "tensor" or None: fsdp gathers kernels before they are used."""
    entries = (*array.sharding.spec, *(None for _ in array.shape))[: len(array.shape)]
    return tuple(
        "tensor" if "tensor" in (entry if isinstance(entry, tuple) else (entry,)) else None
        for entry in entries
    )


def _features(
    module: nn.Module, method: str, splits: dict[str, tuple[str | None, ...]]
) -> tuple[Any, ...] | None:
    """How the last axes of what the module gives are split; None for a module to leave alone."""
    name = "/".join(module.path)
    if isinstance(module, nn.Embed):
        table = splits.get(f"{name}/embedding", (None, None))
        # Looked up, a table gives its width; asked for scores, it gives its rows.
        return {"__call__": table[1:], "attend": table[:1]}.get(method)
    if method != "__call__":
        return None
    if isinstance(module, _NORMS):
        return (None,)
    if isinstance(module, _LINEAR):
        count = len(module.features) if isinstance(module.features, tuple) else 1
        return splits.get(f"{name}/kernel", (None,) * count)[-count:]
    return None
