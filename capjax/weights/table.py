"""Which tensor of a published checkpoint becomes which parameter, and by which transformation.

A table is a list of entries, looked up by our parameter's path. A transformation goes both ways:
what `read` gives is reshaped to the parameter's shape (heads are an axis of their own here), and
`write` gives the published shape again. The functions below make the entries of the usual layers.
All names are regular expressions without anchors: `blocks_(\\d+)` on our side is `\\1` on theirs.

Tensors are read one at a time, and of each only what a device holds: see `place`.

Letters: I input width, O output width, C channels, h, w sides of a kernel, N rows, D width.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from capjax.errors import UserError


class Transform(NamedTuple):
    """From a tensor to a parameter, but for its shape, and from the parameter to the tensor."""

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


class Part(NamedTuple):
    """Which of `count` equal parts of a tensor, split along `axis`."""

    index: int
    count: int
    axis: int = 0

    def of(self, x: np.ndarray) -> np.ndarray:
        """This part, a view."""
        return np.split(x, self.count, self.axis)[self.index]


class Entry(NamedTuple):
    """One kind of parameter."""

    ours: str  # regular expression for the whole path, `image_tower/stack/blocks_(\\d+)/...`
    theirs: str  # the tensor's name, with the groups of `ours`
    transform: Transform
    part: Part | None = None  # of the tensor, where it holds several parameters
    begin: float | None = None  # without a tensor: what the parameter begins with


Table = Sequence[Entry]
Fit = Callable[[str, np.ndarray, tuple[int, ...]], np.ndarray | None]


def _unchanged(x: np.ndarray) -> np.ndarray:
    return x


def _matrix(x: np.ndarray, inputs: int) -> np.ndarray:
    """A kernel whose first `inputs` axes are those of the input: [I,O]."""
    return x.reshape(math.prod(x.shape[:inputs]), -1)


# Nothing but its shape changes; on the way back to that shape, to [D], [N,D], [1,N,D] or [1].
same = Transform(_unchanged, _unchanged)
vector = Transform(_unchanged, lambda x: x.reshape(-1))
rows = Transform(_unchanged, lambda x: x.reshape(-1, x.shape[-1]))
batch_of_rows = Transform(_unchanged, lambda x: x.reshape(1, -1, x.shape[-1]))
one_number = Transform(_unchanged, lambda x: x.reshape(1))
# [O,I,h,w] <-> [h,w,I,O]; so one channel alone (I = 1).
convolution = Transform(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))


def transposed(inputs: int = 1) -> Transform:
    """A linear layer's [O,I] <-> [I,O]; `inputs` axes of our kernel make up I."""
    return Transform(np.transpose, lambda x: _matrix(x, inputs).T)


def as_it_is(inputs: int = 1) -> Transform:
    """A linear layer that is published as [I,O] (GPT-2, big_vision)."""
    return Transform(_unchanged, lambda x: _matrix(x, inputs))


def _as_convolution(x: np.ndarray) -> np.ndarray:
    side = math.isqrt(len(x) // 3)
    return convolution.write(x.reshape(side, side, 3, -1))


# The convolution [O,3,h,h] that cuts a picture into patches, here a linear layer [h*h*3,O].
patches = Transform(convolution.read, _as_convolution)


def kernel(ours: str, theirs: str, transform: Transform = same) -> list[Entry]:
    """A kernel alone, `.weight` there."""
    return [Entry(f"{ours}/kernel", f"{theirs}.weight", transform)]


def linear(
    ours: str,
    theirs: str,
    inputs: int = 1,
    part: Part | None = None,
    kernel: Callable[[int], Transform] = transposed,
) -> list[Entry]:
    """A linear layer; one without bias on our side leaves the second entry unused."""
    return [
        Entry(f"{ours}/kernel", f"{theirs}.weight", kernel(inputs), part),
        Entry(f"{ours}/bias", f"{theirs}.bias", vector, part),
    ]


def unpublished(ours: str, begin: float) -> list[Entry]:
    """A parameter that training needs and published files leave out; it is not exported either."""
    return [Entry(ours, "", same, begin=begin)]


def norm(ours: str, theirs: str) -> list[Entry]:
    """A LayerNorm, or an RMSNorm, which has no bias."""
    return [
        Entry(f"{ours}/scale", f"{theirs}.weight", same),
        Entry(f"{ours}/bias", f"{theirs}.bias", same),
    ]


def batch_norm(ours: str, theirs: str) -> list[Entry]:
    """A BatchNorm with its running statistics."""
    return [
        *norm(ours, theirs),
        Entry(f"{ours}/mean", f"{theirs}.running_mean", same),
        Entry(f"{ours}/var", f"{theirs}.running_var", same),
    ]


def torch_attention(ours: str, theirs: str) -> list[Entry]:
    """torch.nn.MultiheadAttention: query, key and value are rows of one tensor."""
    entries = linear(f"{ours}/out", f"{theirs}.out_proj", inputs=2)
    for i, name in enumerate(("query", "key", "value")):
        part = Part(i, 3)
        entries += [
            Entry(f"{ours}/{name}/kernel", f"{theirs}.in_proj_weight", transposed(), part),
            Entry(f"{ours}/{name}/bias", f"{theirs}.in_proj_bias", vector, part),
        ]
    return entries


def fused_attention(ours: str, theirs: str, out: str) -> list[Entry]:
    """One linear layer for query, key and value in this order, and one for the output."""
    entries = linear(f"{ours}/out", out, inputs=2)
    for i, name in enumerate(("query", "key", "value")):
        entries += linear(f"{ours}/{name}", theirs, part=Part(i, 3))
    return entries


def attention(ours: str, query: str, key: str, value: str, out: str) -> list[Entry]:
    """Attention as four linear layers, each given by name."""
    return [
        *linear(f"{ours}/query", query),
        *linear(f"{ours}/key", key),
        *linear(f"{ours}/value", value),
        *linear(f"{ours}/out", out, inputs=2),
    ]


def to_params(
    table: Table,
    shapes: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    unread: Sequence[str] = (),
) -> dict[str, Any]:
    """The parameters of a model as NumPy arrays, from the tensors of a checkpoint.

    Args:
      table: of the checkpoint's family.
      shapes: the model's parameters or their shapes, a nested dict.
      tensors: the checkpoint's, by name.
      unread: regular expressions for tensors that no parameter needs.

    Raises UserError for a parameter without its tensor or of another size, and for tensors left
    over: the checkpoint is of another variant.
    """
    flat = flatten_dict(dict(shapes), sep="/")
    check_names(table, flat, tensors, unread)
    params = {
        path: np.asarray(_value(table, path, leaf.shape, tensors), leaf.dtype)
        for path, leaf in flat.items()
    }
    return unflatten_dict(params, sep="/")


def place(
    table: Table,
    abstract: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    unread: Sequence[str] = (),
    fit: Fit | None = None,
) -> dict[str, Any]:
    """As `to_params`, onto devices: `abstract` has shapes, types and shardings.

    `fit(path, value, shape)` may give what stands for a tensor of another size; None: nothing does.

    A device's part of a parameter is copied straight from where its tensor lies in the file, so
    that the host holds no more than one tensor beside what stays on its devices.
    """
    flat = flatten_dict(dict(abstract), sep="/")
    check_names(table, flat, tensors, unread)
    params = {}
    for path, leaf in flat.items():
        value = _value(table, path, leaf.shape, tensors, fit)
        # Finished before the next one begins: what is under way is held by the host as well.
        params[path] = jax.block_until_ready(
            jax.make_array_from_callback(
                leaf.shape, leaf.sharding, functools.partial(_piece, value, leaf.dtype)
            )
        )
    return unflatten_dict(params, sep="/")


def to_tensors(
    table: Table, params: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[int, ...], Callable[[], np.ndarray]]]:
    """(name, shape, a function that gives the tensor) of each published tensor, one at a time.

    The reverse of `to_params`. ValueError if a tensor's parts are not all there.
    """
    flat = flatten_dict(dict(params), sep="/")
    holders: dict[str, list[tuple[str, Entry]]] = {}
    for path in flat:
        entry, name = _lookup(table, path)
        if entry.begin is not None:
            continue
        holders.setdefault(name, []).append((path, entry))
    for name, held in holders.items():
        held.sort(key=lambda item: item[1].part.index if item[1].part else 0)
        first = held[0][1]
        if len(held) != (first.part.count if first.part else 1):
            raise ValueError(f"the tensor {name!r} is not made of {[path for path, _ in held]}")

        def tensor(held=held) -> np.ndarray:
            values = [entry.transform.write(np.asarray(flat[path])) for path, entry in held]
            part = held[0][1].part
            return np.concatenate(values, part.axis) if part else values[0]

        shapes = [jax.eval_shape(entry.transform.write, flat[path]).shape for path, entry in held]
        shape = list(shapes[0])
        if first.part:
            shape[first.part.axis] = sum(shape[first.part.axis] for shape in shapes)
        yield name, tuple(shape), tensor


def check_names(
    table: Table,
    flat: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    unread: Sequence[str] = (),
) -> None:
    """Raises UserError unless every parameter has its tensor and every tensor is needed."""
    used = set()
    for path in flat:
        entry, name = _lookup(table, path)
        if entry.begin is not None:
            continue
        if name not in tensors:
            raise UserError(
                f"the checkpoint has no tensor {name!r} for the parameter {path!r}: choose the "
                "variant that it belongs to"
            )
        used.add(name)
    left = [n for n in tensors if n not in used and not any(re.fullmatch(u, n) for u in unread)]
    if left:
        raise UserError(
            f"the model has no parameter for {len(left)} of the checkpoint's tensors, the first of "
            f"them {left[0]!r}: choose the variant that it belongs to"
        )


def _value(
    table: Table,
    path: str,
    shape: tuple[int, ...],
    tensors: Mapping[str, np.ndarray],
    fit: Fit | None = None,
) -> np.ndarray:
    """The tensor as the parameter's array, a view where that is possible."""
    entry, name = _lookup(table, path)
    if entry.begin is not None:
        return np.full(shape, entry.begin, np.float32)
    tensor = np.asarray(tensors[name])
    parts, value = entry.part, tensor
    if parts and tensor.ndim > parts.axis and tensor.shape[parts.axis] % parts.count == 0:
        value = parts.of(tensor)
    value = entry.transform.read(value)
    if value.size == math.prod(shape):
        return value.reshape(shape)
    fitting = fit(path, value, shape) if fit else None
    if fitting is None:
        raise UserError(
            f"the checkpoint's tensor {name!r} of shape {tensor.shape} does not fit the "
            f"parameter {path!r} of shape {tuple(shape)}: choose the variant, vocabulary "
            "and sizes that it belongs to"
        )
    return fitting


def _piece(value: np.ndarray, dtype: Any, index: tuple[slice, ...]) -> np.ndarray:
    return np.array(value[index], dtype)


def _lookup(table: Table, path: str) -> tuple[Entry, str]:
    """The entry of a parameter, and the name of its tensor."""
    for entry in table:
        match = re.fullmatch(entry.ours, path)
        if match:
            return entry, match.expand(entry.theirs)
    raise ValueError(f"the table of names has no entry for the parameter {path!r}")
