"""NumPy archives of parameters, as big_vision publishes them: `params/img/embedding/kernel` ...

A zip of `.npy` files, one a tensor. numpy.savez keeps bfloat16 as two bytes without a type
(`V2`), which is read as bfloat16 again. Arrays of Python objects are refused: they are pickles.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import ml_dtypes
import numpy as np

from capjax.errors import UserError
from capjax.weights.files import zip_entries
from capjax.weights.files.mapped import Source
from capjax.weights.files.tensors import LazyTensor, Tensors, is_shape

SUFFIX = ".npy"
MAX_HEADER_BYTES = 16_384
KINDS = "?biufcSU"  # of NumPy's dtypes: those that are plain bytes


def recognises(path: Path, head: bytes) -> bool:
    """A zip of nothing but `.npy` files."""
    if not head.startswith(zip_entries.MAGIC):
        return False
    names = zip_entries.entries(path)
    return bool(names) and all(name.endswith(SUFFIX) for name in names)


def read(path: Path) -> Tensors:
    """The arrays of an archive.

    Raises:
      UserError: the archive is damaged, or holds Python objects.
    """
    tensors = {}
    for entry, source in zip_entries.entries(path).items():
        name = entry.removesuffix(SUFFIX)
        tensors[name] = _lazy(name, source, path)
    return Tensors(tensors, "npz", [path])


def _lazy(name: str, source: Source, path: Path) -> LazyTensor:
    shape, fortran_order, dtype, start = _header(name, source, path)
    if dtype == np.dtype("V2"):
        dtype = np.dtype(ml_dtypes.bfloat16)
    elif dtype.kind not in KINDS:
        raise UserError(
            f"the array {name!r} of {str(path)!r} is of {str(dtype)[:80]}, not of numbers, and was "
            "refused: save it as plain arrays"
        )
    stop = start + math.prod(shape) * dtype.itemsize
    if stop != source.size:
        raise UserError(
            f"the array {name!r} of {str(path)!r} has another size than its header says: download "
            "the file again"
        )
    native = dtype.newbyteorder("=") if dtype.kind in KINDS else dtype

    def open_array() -> np.ndarray:
        array = source.read(start, stop).view(dtype)
        array = array.reshape(shape, order="F" if fortran_order else "C")
        return array.astype(native, copy=False)

    return LazyTensor(shape, native, open_array)


def _header(name: str, source: Source, path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether the first axis varies fastest, dtype, and where the data begins."""
    file = io.BytesIO(source.read(0, min(source.size, MAX_HEADER_BYTES)).tobytes())
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(file, max_header_size=MAX_HEADER_BYTES)
    except Exception as error:  # NumPy parses a Python literal there, which fails in many ways
        raise _bad_header(name, path) from error
    if not is_shape(shape):
        raise _bad_header(name, path)
    return tuple(shape), fortran_order, dtype, file.tell()


def _bad_header(name: str, path: Path) -> UserError:
    return UserError(
        f"the array {name!r} of {str(path)!r} has no header of NumPy's .npy format: download the "
        "file again"
    )
