"""Tensors of a checkpoint by name, each read only when it is asked for.

Opening a file reads names, sizes and places. `tensors[name]` gives a read-only array that maps
the file wherever the format allows, so that going through a checkpoint one tensor at a time needs
the memory of about one tensor, however large the file is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAX_DIMENSIONS = 32  # what NumPy had before 2.0; no published tensor has more than 6


class LazyTensor(NamedTuple):
    """Where one tensor is, without its data."""

    shape: tuple[int, ...]
    dtype: np.dtype
    open: Callable[[], np.ndarray]


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of one checkpoint, in the order of the file.

    Attributes:
      format: "safetensors", "torch", "npz" or "llama2c".
      files: the files that hold the tensors; a sharded checkpoint has several.
      config: the model's sizes in the fields of Hugging Face's config.json, where the file itself
        tells them; else None.
    """

    def __init__(
        self,
        tensors: Mapping[str, LazyTensor],
        format: str,
        files: Sequence[Path],
        config: Mapping[str, Any] | None = None,
    ):
        self._tensors = dict(tensors)
        self.format = format
        self.files = tuple(files)
        self.config = config

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[name].open()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors  # Mapping's own would open the tensor

    def __repr__(self) -> str:
        return f"Tensors({len(self)} of format {self.format} in {len(self.files)} file(s))"

    def lazy(self, name: str) -> LazyTensor:
        """One tensor's place, for a container that gathers several files."""
        return self._tensors[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape, without reading data."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        """The kind of number, without reading data; ml_dtypes' for bfloat16 and float8."""
        return self._tensors[name].dtype


def is_shape(value: Any) -> bool:
    """Whether a value from a file is a shape: not negative, whole, and of a size that can be."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n < 2**63 for n in value)
        and math.prod(n or 1 for n in value) < 2**56  # times 16 bytes it still fits NumPy's sizes
    )
