"""Which axis of which array is split over which axis of the mesh: a list of (regex, rule).

The first regex that is found in a parameter's path (`decoder/layer_0/mlp/kernel`) decides:

    "replicate"          every device holds all of it
    "fsdp"               the largest axis that the fsdp devices divide is split over them; vectors
                         stay whole, since splitting them saves nothing and costs a message each
    "column"             a layer whose outputs are split over the tensor devices: heads, or the
                         hidden layer of an MLP; the rest of its kernel as by "fsdp"
    "row"                a layer whose inputs are split so, and whose outputs are sums over them
    "vocabulary"         the largest axis is split over the tensor and the fsdp devices, as far as
                         they divide it: a table is read by rows, so its width stays whole
    (None, "fsdp", ..)   for each axis of the array, the mesh axis (or tuple of them) or None

In place of a pair, the name of a list in `RULE_SETS` stands for its rules: the default,
("tensor",), is Megatron-LM's split of the one transformer block that all models here are made of
(Shoeybi et al. 2019, section 3: a column then a row, one sum for each half of a block). Without
devices along the tensor axis it is the same as ((".*", "fsdp"),).

Activations follow from these rules: see `parallel.activations`.

Optimiser moments and the moving average follow the parameter whose path theirs ends with.

Raises `UserError` for an unknown rule, an unknown mesh axis, or a rule that does not fit.
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
Rules = Sequence[tuple[str, Rule] | str]

RULES = ("replicate", "fsdp", "column", "row", "vocabulary")
_SPLIT = ("column", "row", "vocabulary")  # those that know the tensor axis

RULE_SETS: dict[str, tuple[tuple[str, Rule], ...]] = {
    "replicate": ((".*", "replicate"),),
    "fsdp": ((".*", "fsdp"),),
    "tensor": (
        (r"(^|/)(query|key|value)/(kernel|bias)$", "column"),
        (r"(^|/)mlp_(in|gate)/(kernel|bias)$", "column"),
        (r"(^|/)(attention|self_attention|cross_attention)/out/kernel$", "row"),
        (r"(^|/)mlp_out/kernel$", "row"),
        (r"(^|/)(embedding/embedding|head/kernel)$", "vocabulary"),
        (".*", "fsdp"),
    ),
}


def path_name(path: Sequence[Any]) -> str:
    """A pytree path as text: `opt_state/0/mu/decoder/kernel`."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Every leaf of a pytree by the text of its path."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def parameter_shardings(rules: Rules, params: Any, mesh: Mesh) -> Any:
    """A tree like `params` (arrays or shapes) of NamedSharding."""
    pairs = _pairs(rules)
    _check_used(pairs, named_leaves(params), mesh)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _sharding(pairs, path_name(path), leaf.shape, mesh), params
    )


def state_shardings(rules: Rules, state: Any, params: Any, mesh: Mesh) -> Any:
    """A tree like `state`, whose leaves lie as the parameter they belong to.

    A leaf belongs to the parameter whose whole path ends its own; factored moments, whose shape
    is another one, are split as by "fsdp" unless the rule names axes. What belongs to no
    parameter (counters) is replicated.
    """
    pairs = _pairs(rules)
    shapes = {name: leaf.shape for name, leaf in named_leaves(params).items()}
    _check_used(pairs, shapes, mesh)

    def sharding(path: Sequence[Any], leaf: Any) -> NamedSharding:
        parts = path_name(path).split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if name not in shapes:
                continue
            rule = _rule(pairs, name)
            if leaf.shape == shapes[name]:
                return _sharding(pairs, name, leaf.shape, mesh)
            if rule in ("fsdp", *_SPLIT):
                return NamedSharding(mesh, _fsdp(leaf.shape, mesh))
            break
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, state)


def bytes_per_device(abstract: Any) -> int:
    """What one device holds of a tree of arrays, or of shapes with their shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(abstract)
    )


def _rule(pairs: Sequence[tuple[str, Rule]], name: str) -> Rule:
    for regex, rule in pairs:
        if re.search(regex, name):
            return rule
    return "replicate"


def _sharding(
    pairs: Sequence[tuple[str, Rule]], name: str, shape: tuple[int, ...], mesh: Mesh
) -> NamedSharding:
    rule = _rule(pairs, name)
    if rule == "replicate":
        spec = PartitionSpec()
    elif rule == "fsdp":
        spec = _fsdp(shape, mesh)
    elif rule == "vocabulary":
        spec = _vocabulary(shape, mesh)
    elif rule in _SPLIT:
        spec = _fsdp(shape, mesh, _tensor_axis(rule, name, shape, mesh))
    else:
        spec = _explicit(rule, name, shape, mesh)
    return NamedSharding(mesh, spec)


def _fsdp(shape: tuple[int, ...], mesh: Mesh, tensor_axis: int | None = None) -> PartitionSpec:
    """The largest axis that is left and divisible over fsdp, `tensor_axis` over tensor."""
    entries: list[str | None] = [None] * len(shape)
    if tensor_axis is not None:
        entries[tensor_axis] = "tensor"
    count = mesh.shape["fsdp"]
    divisible = [
        axis for axis, size in enumerate(shape) if size % count == 0 and axis != tensor_axis
    ]
    if len(shape) > 1 and count > 1 and divisible:
        entries[max(divisible, key=lambda axis: shape[axis])] = "fsdp"
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)


def _vocabulary(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    if mesh.shape["tensor"] == 1:
        return _fsdp(shape, mesh)
    largest = max(range(len(shape)), key=lambda axis: shape[axis])
    for axes in (("tensor", "fsdp"), ("tensor",)):
        if shape[largest] % math.prod(mesh.shape[axis] for axis in axes) == 0:
            return PartitionSpec(*[None] * largest, axes)
    return _fsdp(shape, mesh)


def _tensor_axis(rule: str, name: str, shape: tuple[int, ...], mesh: Mesh) -> int | None:
    """The axis that is split over the tensor devices; None if there is one of them."""
    count = mesh.shape["tensor"]
    if count == 1:
        return None
    # A column's outputs follow the one axis of its inputs; its bias has outputs alone.
    axis = int(rule == "column" and not name.endswith("bias"))
    if axis >= len(shape):
        raise UserError(f"config.sharding: {rule!r} is for matrices, but {name!r} is {shape}")
    if shape[axis] % count:
        pattern = re.sub(r"_\d+", "_.*", name.rsplit("/", 1)[0])
        raise UserError(
            f"the mesh has tensor: {count}, which does not divide the {shape[axis]} "
            f"{'heads' if len(shape) > 2 else 'hidden units'} of {name!r}: choose a divisor, or "
            f"put ({pattern!r}, 'fsdp') first in config.sharding"
        )
    return axis


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


def _pairs(rules: Rules) -> list[tuple[str, Rule]]:
    """The rules with names of sets replaced by theirs; UserError for what is no rule."""
    pairs: list[tuple[str, Rule]] = []
    for entry in rules:
        if isinstance(entry, str):
            if entry not in RULE_SETS:
                raise UserError(
                    f"config.sharding: there is no set of rules {entry!r}; the sets are "
                    f"{', '.join(RULE_SETS)}"
                )
            pairs += RULE_SETS[entry]
            continue
        if len(entry) != 2:
            raise UserError(f"config.sharding: {entry!r} is not a pair (regex, rule)")
        regex, rule = entry
        try:
            re.compile(regex)
        except re.error as error:
            raise UserError(f"config.sharding: {regex!r} is not a regex: {error}") from error
        if isinstance(rule, str) and rule not in RULES:
            raise UserError(
                f"config.sharding: unknown rule {rule!r}; use {', '.join(map(repr, RULES))} or a "
                "tuple of mesh axes"
            )
        pairs.append((regex, rule))
    return pairs


def _check_used(pairs: Sequence[tuple[str, Rule]], params: dict[str, Any], mesh: Mesh) -> None:
    """Raises UserError for tensor devices to which no rule gives anything to do."""
    if mesh.shape["tensor"] == 1:
        return
    for name in params:
        rule = _rule(pairs, name)
        named = jax.tree.leaves(rule) if isinstance(rule, tuple) else [rule]
        if any(entry in ("tensor", "column", "row") for entry in named):
            return
    raise UserError(
        f"the mesh has tensor: {mesh.shape['tensor']}, but config.sharding splits no parameter of "
        "the model over it: use ('tensor',), or give these devices to data or fsdp"
    )
