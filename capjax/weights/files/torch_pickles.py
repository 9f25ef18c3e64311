"""What the names in PyTorch's pickles mean, for reading tensors without torch.

`torch.save` pickles a state dict in which each tensor is a call of `_rebuild_tensor_v2` on a
storage, and each storage a persistent id. Only the names below are known; any other name is code
to us and ends the reading. Classes of a TorchScript archive, all under `__torch__`, become inert
objects with attributes.

Source: github pytorch/pytorch, `torch/_utils.py`, `torch/serialization.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from capjax.errors import UserError
from capjax.weights.files.mapped import Source
from capjax.weights.files.pickles import Instance, Name, Unpickler
from capjax.weights.files.tensors import LazyTensor, is_shape

STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# By torch's own names. Kinds without a storage class are named so by their tensors.
DTYPES = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "bool": np.dtype("?"),
}
BYTES = np.dtype("u1")  # an UntypedStorage counts them
SCRIPT = "__torch__"


class Storage(NamedTuple):
    """A stretch of numbers that tensors view."""

    key: str
    dtype: np.dtype
    count: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def unpickler(data: memoryview, path: Path, storages: dict[str, Storage]) -> Unpickler:
    """A reader of the pickles of `torch.save`; storages and tensors come as the classes above.

    Args:
      data: the pickles.
      path: of the file, for errors.
      storages: takes each storage that is met, by its key.

    Raises (when it reads):
      UserError: a name that is not one of tensors, hence code.
    """

    def resolve(module: str, name: str) -> Name:
        known = NAMES.get(f"{module}.{name}")
        if known is not None:
            return known
        if module == SCRIPT or module.startswith(SCRIPT + "."):
            return Name(lambda _: Instance())
        raise UserError(
            f"{str(path)!r} holds code ({f'{module}.{name}'[:80]!r}) beside its tensors and was "
            "refused: where you trust it, load it with torch and write its state dict with "
            "safetensors.torch.save_file"
        )

    def persistent(pid: Any) -> Storage:
        storage = _storage(pid)
        storages.setdefault(storage.key, storage)
        return storage

    return Unpickler(data, path, resolve, persistent)


def lazy(name: str, tensor: Tensor, storages: Mapping[str, Source], path: Path) -> LazyTensor:
    """A tensor as a view of the file.

    Raises:
      UserError: the file lacks its storage, or the view reaches outside of it.
    """
    storage = tensor.storage
    source = storages.get(storage.key)
    if source is None or source.size < storage.count * storage.dtype.itemsize:
        raise UserError(
            f"{str(path)!r} lacks the bytes of the tensor {name!r}: it is cut short, download it "
            "again"
        )
    itemsize = tensor.dtype.itemsize
    span = 0  # in numbers, from the first to behind the last
    if 0 not in tensor.shape:
        span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    start = tensor.offset * itemsize
    stop = start + span * itemsize
    if span and stop > storage.count * storage.dtype.itemsize:
        raise UserError(
            f"the tensor {name!r} of {str(path)!r} reaches outside of its storage: the file is "
            "damaged, download it again"
        )

    def open_array() -> np.ndarray:
        if not span:
            return np.ndarray(tensor.shape, tensor.dtype, buffer=source.read(0, 0).data)
        # NumPy checks once more that the strides stay inside of the buffer.
        strides = [stride * itemsize for stride in tensor.strides]
        data = source.read(start, stop)
        return np.ndarray(tensor.shape, tensor.dtype, buffer=data.data, strides=strides)

    return LazyTensor(tensor.shape, tensor.dtype, open_array)


def _storage(pid: Any) -> Storage:
    """From the persistent id ("storage", kind, key, device, count), and a view in legacy files."""
    kind, storage, key, _, count, *view = pid
    if kind != "storage" or type(key) is not str or not is_shape([count]):
        raise TypeError
    if view not in ([], [None]):
        raise TypeError  # before torch 0.4: storages inside storages
    return Storage(key, _dtype(storage), count)


def _dtype(name: Any) -> np.dtype:
    if type(name) is not Name or not isinstance(name.value, np.dtype):
        raise TypeError
    return name.value


def _tensor(storage: Any, dtype: np.dtype, offset: Any, shape: Any, strides: Any) -> Tensor:
    if not (is_shape([offset]) and is_shape(shape) and len(shape) == len(strides)):
        raise ValueError
    if not all(is_shape([stride]) for stride in strides):
        raise ValueError
    return Tensor(storage, dtype, offset, tuple(shape), tuple(strides))


def _rebuild_v2(arguments: tuple) -> Tensor:
    storage, offset, shape, strides, *_ = arguments
    if type(storage) is not Storage:
        raise TypeError
    return _tensor(storage, storage.dtype, offset, shape, strides)


def _rebuild_v3(arguments: tuple) -> Tensor:
    storage, offset, shape, strides, _, _, dtype, *_ = arguments
    if type(storage) is not Storage:
        raise TypeError
    return _tensor(storage, _dtype(dtype), offset, shape, strides)


def _first(arguments: tuple) -> Any:
    return arguments[0]


def _ordered_dict(arguments: tuple) -> dict:
    if arguments:  # Python 3 writes an empty one and sets its items
        raise TypeError
    return {}


def _nothing(arguments: tuple) -> None:
    """Lists of a TorchScript module that are no part of its state."""


_CALLS: dict[str, Callable[[tuple], Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _first,
    "torch._utils._rebuild_tensor_v2": _rebuild_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.device": _nothing,
    "torch.jit._pickle.build_boollist": _nothing,
    "torch.jit._pickle.build_doublelist": _nothing,
    "torch.jit._pickle.build_intlist": _nothing,
    "torch.jit._pickle.build_tensorlist": _nothing,
    "torch.jit._pickle.restore_type_tag": _first,
}

NAMES = {
    **{name: Name(call) for name, call in _CALLS.items()},
    **{f"torch.{name}": Name(value=dtype) for name, dtype in STORAGES.items()},
    **{f"torch.{name}": Name(value=dtype) for name, dtype in DTYPES.items()},
    "torch.storage.UntypedStorage": Name(value=BYTES),
}
