"""Which axis of which array is split over which axis of the mesh: a list of (regex, rule).

The first regex that is found in a parameter's path (`decoder/layer_0/mlp/kernel`) decides:

    "replicate"          every device holds all of it
    "fsdp"               the largest axis that the fsdp devices divide is split over them; vectors
                         stay whole, since splitting them saves nothing and costs a message each
    (None, "fsdp", ..)   for each axis of the array, the mesh axis (or tuple of them) or None

Optimiser moments and the moving average follow the parameter whose path theirs ends with.

Raises `UserError` for an unknown rule, an unknown mesh axis, or a tuple that does not fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from capjax.errors import UserError

Rule = str | tuple
Rules = Sequence[tuple[str, Rule]]


def path_name(path: Sequence[Any]) -> str:
    """A pytree path as text: `opt_state/0/mu/decoder/kernel`."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Every leaf of a pytree by the text of its path."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def parameter_shardings(rules: Rules, params: Any, mesh: Mesh) -> Any:
    """A tree like `params` (arrays or shapes) of NamedSharding."""
    _check(rules)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _sharding(rules, path_name(path), leaf.shape, mesh), params
    )


def state_shardings(rules: Rules, state: Any, params: Any, mesh: Mesh) -> Any:
    """A tree like `state`, whose leaves lie as the parameter they belong to.

    A leaf belongs to the parameter whose whole path ends its own; factored moments, whose shape
    is another one, follow the rule only where the rule names no axes. What belongs to no
    parameter (counters) is replicated.
    """
    _check(rules)
    shapes = {name: leaf.shape for name, leaf in named_leaves(params).items()}

    def sharding(path: Sequence[Any], leaf: Any) -> NamedSharding:
        parts = path_name(path).split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if name in shapes:
                if leaf.shape != shapes[name] and not isinstance(_rule(rules, name), str):
                    break
                return _sharding(rules, name, leaf.shape, mesh)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, state)


def _rule(rules: Rules, name: str) -> Rule:
    for regex, rule in rules:
        if re.search(regex, name):
            return rule
    return "replicate"


def _sharding(rules: Rules, name: str, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    rule = _rule(rules, name)
    if rule == "replicate":
        spec = PartitionSpec()
    elif rule == "fsdp":
        spec = _fsdp(shape, mesh)
    else:
        spec = _explicit(rule, name, shape, mesh)
    return NamedSharding(mesh, spec)


def _fsdp(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    count = mesh.shape["fsdp"]
    divisible = [axis for axis, size in enumerate(shape) if size % count == 0]
    if len(shape) < 2 or count == 1 or not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * largest, "fsdp")


def _explicit(rule: tuple, name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    if len(rule) > len(shape):
        raise UserError(
            f"config.sharding: {rule} names {len(rule)} axes, but {name!r} has shape {shape}"
        )
    for size, entry in zip(shape, rule, strict=False):
        axes = (entry,) if isinstance(entry, str) else entry or ()
        unknown = [axis for axis in axes if axis not in mesh.shape]
        if unknown:
            raise UserError(
                f"config.sharding: the mesh has no axis {unknown[0]!r}; "
                f"its axes are {', '.join(mesh.shape)}"
            )
        count = math.prod(mesh.shape[axis] for axis in axes)
        if size % count:
            raise UserError(
                f"config.sharding: {count} devices do not divide an axis of {size} "
                f"of {name!r} (rule {rule})"
            )
    return PartitionSpec(*rule)


def _check(rules: Rules) -> None:
    for entry in rules:
        if len(entry) != 2:
            raise UserError(f"config.sharding: {entry!r} is not a pair (regex, rule)")
        regex, rule = entry
        try:
            re.compile(regex)
        except re.error as error:
            raise UserError(f"config.sharding: {regex!r} is not a regex: {error}") from error
        if isinstance(rule, str) and rule not in ("replicate", "fsdp"):
            raise UserError(
                f"config.sharding: unknown rule {rule!r}; use 'replicate', 'fsdp' or a tuple of "
                "mesh axes"
            )
