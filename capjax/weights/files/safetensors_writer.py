"""Safetensors files written one tensor at a time, in one file or in shards with an index.

Each tensor is asked for only when its bytes are due, so that writing takes the memory of one.
Shards are named as Hugging Face names them, `model-00001-of-00002.safetensors` with
`model.safetensors.index.json`. All files appear when the last tensor is written, or none does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from capjax.errors import UserError
from capjax.weights.files.safetensors_file import DTYPES, LENGTH_BYTES, METADATA
from capjax.weights.files.shards import SUFFIX
from capjax.whole_file import whole_file

ALIGNMENT = 8  # the data begins at a multiple of it, so that mapped arrays are aligned


class Promise(NamedTuple):
    """A tensor to write; `array` gives it when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    array: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write(
    path: str | Path,
    tensors: Iterable[tuple[str, Sequence[int], np.dtype, Callable[[], np.ndarray]]],
    metadata: Mapping[str, str],
    max_shard_bytes: int | None = None,
) -> list[Path]:
    """Writes tensors given as (name, shape, dtype, function that gives the array).

    Args:
      path: `FOLDER/model.safetensors`; shards and index take their names from it.
      tensors: all shapes are needed for the header, hence the functions for the data.
      metadata: text for the header; transformers expects {"format": "pt"} in it.
      max_shard_bytes: begin a new shard where a tensor would pass this size; a tensor larger than
        it has a shard of its own. None, or tensors that all fit: one file without index.

    Returns:
      The files written, the index last.

    Raises:
      UserError: the place cannot be written to, or holds the same checkpoint in the other form,
        which a reader could take for this one.
      ValueError: a name stands twice, a dtype that the format lacks, or an array is not as
        promised.
    """
    path = Path(path)
    promises = [Promise(n, tuple(s), np.dtype(d), array) for n, s, d, array in tensors]
    _check(promises, metadata)
    shards = _split(promises, max_shard_bytes)
    index = path.with_name(path.name + SUFFIX)
    if len(shards) == 1:
        _refuse_beside(index, path)
        with whole_file(path, "wb") as file:
            _write_one(file, shards[0], metadata)
        return [path]
    _refuse_beside(path, index)
    files = [
        path.with_name(f"{path.stem}-{i:05d}-of-{len(shards):05d}{path.suffix}")
        for i in range(1, len(shards) + 1)
    ]
    # The stack closes in reverse, so that the index takes its name last; none does on an error.
    with ExitStack() as stack:
        index_file = stack.enter_context(whole_file(index))
        for shard_path, shard in zip(files, shards, strict=True):
            _write_one(stack.enter_context(whole_file(shard_path, "wb")), shard, metadata)
        json.dump(_index(files, shards), index_file, indent=2, sort_keys=True)
        # An index of before must not stand over some new and some old shards.
        index.unlink(missing_ok=True)
    return [*files, index]


def _check(promises: Sequence[Promise], metadata: Mapping[str, str]) -> None:
    names = [promise.name for promise in promises]
    if len(set(names)) != len(names) or METADATA in names:
        raise ValueError(f"names stand twice among the tensors, or one is {METADATA!r}")
    for promise in promises:
        if promise.dtype not in DTYPES.values():
            raise ValueError(f"safetensors has no dtype for {promise.name!r} of {promise.dtype}")
    if not all(isinstance(x, str) for item in metadata.items() for x in item):
        raise ValueError("the metadata of safetensors are texts by text")


def _refuse_beside(other: Path, path: Path) -> None:
    if other.exists():
        raise UserError(f"cannot write {str(path)!r} beside {str(other)!r}: remove that one first")


def _split(promises: Sequence[Promise], max_shard_bytes: int | None) -> list[list[Promise]]:
    """In the given order, each shard filled before the next begins."""
    shards: list[list[Promise]] = [[]]
    room = math.inf if max_shard_bytes is None else max_shard_bytes
    size = 0
    for promise in promises:
        if shards[-1] and size + promise.size > room:
            shards.append([])
            size = 0
        shards[-1].append(promise)
        size += promise.size
    return shards


def _index(files: Sequence[Path], shards: Sequence[Sequence[Promise]]) -> dict:
    """Hugging Face's index; total_size counts the tensors' bytes."""
    return {
        "metadata": {"total_size": sum(promise.size for shard in shards for promise in shard)},
        "weight_map": {
            promise.name: file.name
            for file, shard in zip(files, shards, strict=True)
            for promise in shard
        },
    }


def _write_one(file: IO[bytes], promises: Sequence[Promise], metadata: Mapping[str, str]) -> None:
    # Wide numbers first, so that none begins inside a word.
    promises = sorted(promises, key=lambda promise: -promise.dtype.itemsize)
    codes = {dtype: code for code, dtype in DTYPES.items()}
    header: dict[str, dict] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for promise in promises:
        header[promise.name] = {
            "dtype": codes[promise.dtype],
            "shape": list(promise.shape),
            "data_offsets": [end, end + promise.size],
        }
        end += promise.size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    for promise in promises:
        file.write(_bytes(promise))


def _bytes(promise: Promise) -> memoryview:
    array = np.asarray(promise.array())
    if array.shape != promise.shape or array.dtype != promise.dtype:
        raise ValueError(
            f"the tensor {promise.name!r} was promised as {promise.dtype} {promise.shape} and came "
            f"as {array.dtype} {array.shape}"
        )
    # A view as bytes, for ml_dtypes' numbers do not offer their memory themselves. Of one
    # dimension, for a scalar has no axis whose length could change.
    return memoryview(np.ascontiguousarray(array, promise.dtype).reshape(-1).view(np.uint8))
