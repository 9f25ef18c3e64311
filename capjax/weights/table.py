"""Which tensor of a published checkpoint becomes which parameter, and by which transformation.

A table is a list of entries, looked up by our parameter's path; what the entry's transformation
gives is reshaped to the parameter's shape (heads are an axis of their own here). The functions
below make the entries of the usual layers. All names are regular expressions without anchors:
`blocks_(\\d+)` on our side is `\\1` on theirs.

Letters: I input width, O output width, C channels, h, w sides of a kernel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from capjax.errors import UserError

Transform = Callable[[np.ndarray], np.ndarray]


class Entry(NamedTuple):
    """One kind of parameter."""

    ours: str  # regular expression for the whole path, `image_tower/stack/blocks_(\\d+)/...`
    theirs: str  # the tensor's name, with the groups of `ours`
    transform: Transform


Table = Sequence[Entry]


def same(x: np.ndarray) -> np.ndarray:
    """Nothing but its shape changes."""
    return x


def transposed(x: np.ndarray) -> np.ndarray:
    """A linear layer's [O,I] -> [I,O]."""
    return x.T


def convolution(x: np.ndarray) -> np.ndarray:
    """A convolution's [O,I,h,w] -> [h,w,I,O]; so for patches, and for one channel alone (I = 1)."""
    return x.transpose(2, 3, 1, 0)


def third(index: int, then: Transform) -> Transform:
    """Query, key or value (0, 1, 2) of a layer that holds the three as rows of one tensor."""
    return lambda x: then(np.split(x, 3)[index])


def linear(ours: str, theirs: str) -> list[Entry]:
    """A linear layer; one without bias on our side leaves the second entry unused."""
    return [
        Entry(f"{ours}/kernel", f"{theirs}.weight", transposed),
        Entry(f"{ours}/bias", f"{theirs}.bias", same),
    ]


def layer_norm(ours: str, theirs: str) -> list[Entry]:
    """A LayerNorm."""
    return [
        Entry(f"{ours}/scale", f"{theirs}.weight", same),
        Entry(f"{ours}/bias", f"{theirs}.bias", same),
    ]


def batch_norm(ours: str, theirs: str) -> list[Entry]:
    """A BatchNorm with its running statistics."""
    return [
        *layer_norm(ours, theirs),
        Entry(f"{ours}/mean", f"{theirs}.running_mean", same),
        Entry(f"{ours}/var", f"{theirs}.running_var", same),
    ]


def fused_attention(ours: str, theirs: str) -> list[Entry]:
    """torch.nn.MultiheadAttention."""
    entries = linear(f"{ours}/out", f"{theirs}.out_proj")
    for i, name in enumerate(("query", "key", "value")):
        entries += [
            Entry(f"{ours}/{name}/kernel", f"{theirs}.in_proj_weight", third(i, transposed)),
            Entry(f"{ours}/{name}/bias", f"{theirs}.in_proj_bias", third(i, same)),
        ]
    return entries


def attention(ours: str, query: str, key: str, value: str, out: str) -> list[Entry]:
    """Attention as four linear layers, each given by name."""
    return [
        *linear(f"{ours}/query", query),
        *linear(f"{ours}/key", key),
        *linear(f"{ours}/value", value),
        *linear(f"{ours}/out", out),
    ]


def to_params(
    table: Table,
    shapes: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    unread: Sequence[str] = (),
) -> dict[str, Any]:
    """The parameters of a model, from the tensors of a checkpoint.

    Args:
      table: of the checkpoint's family.
      shapes: the model's parameters or their shapes, a nested dict.
      tensors: the checkpoint's, by name.
      unread: regular expressions for tensors that no parameter needs.

    Raises UserError for a parameter without its tensor or of another size, and for tensors left
    over: the checkpoint is of another variant.
    """
    params, used = {}, set()
    for path, leaf in flatten_dict(dict(shapes), sep="/").items():
        name, transform = _lookup(table, path)
        if name not in tensors:
            raise UserError(
                f"the checkpoint has no tensor {name!r} for the parameter {path!r}: choose the "
                "variant that it belongs to"
            )
        value = transform(np.asarray(tensors[name]))
        if value.size != np.prod(leaf.shape):
            raise UserError(
                f"the checkpoint's tensor {name!r} of shape {tensors[name].shape} does not fit the "
                f"parameter {path!r} of shape {tuple(leaf.shape)}: choose the variant, vocabulary "
                "and sizes that it belongs to"
            )
        params[path] = np.asarray(value.reshape(leaf.shape), leaf.dtype)
        used.add(name)
    left = [n for n in tensors if n not in used and not any(re.fullmatch(u, n) for u in unread)]
    if left:
        raise UserError(
            f"the model has no parameter for {len(left)} of the checkpoint's tensors, the first of "
            f"them {left[0]!r}: choose the variant that it belongs to"
        )
    return unflatten_dict(params, sep="/")


def _lookup(table: Table, path: str) -> tuple[str, Transform]:
    for entry in table:
        match = re.fullmatch(entry.ours, path)
        if match:
            return match.expand(entry.theirs), entry.transform
    raise ValueError(f"the table of names has no entry for the parameter {path!r}")
