"""Safetensors files: a JSON header with the place of each tensor, then the tensors' bytes.

Layout (github huggingface/safetensors, "Format"): 8 bytes, the header's length, little-endian;
the header; the data, which the tensors fill without gaps, each row-major and little-endian.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from capjax.errors import UserError
from capjax.weights.files import strict_json
from capjax.weights.files.mapped import MappedFile, Region
from capjax.weights.files.tensors import LazyTensor, Tensors, is_shape

LENGTH_BYTES = 8
METADATA = "__metadata__"

DTYPES: Mapping[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


class _Place(NamedTuple):
    """One tensor of the header; the offsets count bytes from the end of the header."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def recognises(path: Path, head: bytes) -> bool:
    """By name, or by a header that opens where it should."""
    return path.suffix == ".safetensors" or head[LENGTH_BYTES : LENGTH_BYTES + 2] == b'{"'


def read(path: Path) -> Tensors:
    """The tensors of one file.

    Raises:
      UserError: the file is cut short, or its header does not describe it exactly.
    """
    file = MappedFile(path)
    header, data = _header(file)
    header.pop(METADATA, None)
    places = {name: _place(name, entry, data, path) for name, entry in header.items()}
    _check_without_gaps(places, data.size, path)
    return Tensors({name: _lazy(data, p) for name, p in places.items()}, "safetensors", [path])


def _header(file: MappedFile) -> tuple[dict[str, Any], Region]:
    """The header and the stretch of data after it."""
    if file.size < LENGTH_BYTES:
        raise _cut_short(file.path)
    length = int.from_bytes(file.read(0, LENGTH_BYTES).tobytes(), "little")
    if length > strict_json.MAX_BYTES:
        raise UserError(
            f"{str(file.path)!r} claims a header of {length} bytes, above the limit of "
            f"{strict_json.MAX_BYTES}: it is not a safetensors file or is damaged, download it "
            "again"
        )
    end = LENGTH_BYTES + length
    if end > file.size:
        raise _cut_short(file.path)
    text = file.read(LENGTH_BYTES, end).tobytes()
    return (
        strict_json.json_object(text, file.path, "the header"),
        Region(file, end, file.size - end),
    )


def _place(name: str, entry: Any, data: Region, path: Path) -> _Place:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, name, "is not described by dtype, shape and data_offsets")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise UserError(
            f"the tensor {name!r} of {str(path)!r} has the dtype {str(entry['dtype'])[:40]!r}, and "
            f"only {', '.join(DTYPES)} are read: convert it"
        )
    if not is_shape(entry["shape"]):
        raise _damaged(path, name, "has no possible shape")
    offsets = entry["data_offsets"]
    whole = isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets)
    if not whole or not 0 <= offsets[0] <= offsets[1]:
        raise _damaged(path, name, "has no possible offsets")
    if offsets[1] > data.size:
        raise _cut_short(path)
    dtype = DTYPES[entry["dtype"]]
    if offsets[1] - offsets[0] != math.prod(entry["shape"]) * dtype.itemsize:
        raise _damaged(path, name, "has a shape that does not match its number of bytes")
    return _Place(dtype, tuple(entry["shape"]), *offsets)


def _check_without_gaps(places: Mapping[str, _Place], size: int, path: Path) -> None:
    """The format allows neither overlaps nor bytes that no tensor holds."""
    end = 0
    for name, place in sorted(places.items(), key=lambda item: item[1][2:]):
        if place.start != end:
            how = "overlaps another tensor" if place.start < end else "leaves a gap before it"
            raise _damaged(path, name, how)
        end = place.stop
    if end != size:
        raise UserError(
            f"{str(path)!r} has {size - end} bytes that no tensor of its header holds: download it "
            "again"
        )


def _lazy(data: Region, place: _Place) -> LazyTensor:
    return LazyTensor(
        place.shape,
        place.dtype,
        lambda: data.read(place.start, place.stop).view(place.dtype).reshape(place.shape),
    )


def _cut_short(path: Path) -> UserError:
    return UserError(f"{str(path)!r} is cut short: download it again")


def _damaged(path: Path, name: str, how: str) -> UserError:
    return UserError(f"the tensor {name!r} of {str(path)!r} {how}: download the file again")
