"""Readers of published checkpoint files, lazily and without running what is in them.

`open_tensors` tells the format by content: safetensors, PyTorch's files (without torch and
without executing pickles), NumPy archives as big_vision publishes them, llama2.c's export, and
the first two in shards with an index.
"""

from __future__ import annotations

from pathlib import Path

from capjax.errors import UserError
from capjax.weights.files import llama2c_file, npz_file, safetensors_file, shards, torch_file
from capjax.weights.files.folder import checkpoint_in
from capjax.weights.files.tensors import Tensors

__all__ = ["Tensors", "open_tensors"]

# By how sure each is: llama2.c's header has no mark, only a size that must come out exactly.
READERS = (safetensors_file, npz_file, torch_file, llama2c_file)

# What stands in a clone of a repository whose large files were not fetched.
LFS_POINTER = b"version https://git-lfs"


def open_tensors(path: str | Path) -> Tensors:
    """The tensors of a checkpoint by name: of a file, an index of shards, or a folder with either.

    Raises:
      UserError: nothing is there, the format is not known, or the file is damaged or holds code.
    """
    path = Path(path)
    if path.is_dir():
        path = checkpoint_in(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {str(path)!r}: give a file or folder that is")
    if path.name.endswith(shards.SUFFIX):
        return shards.read_index(path, _open_file)
    return _open_file(path)


def _open_file(path: Path) -> Tensors:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    if head.startswith(LFS_POINTER):
        raise UserError(
            f"{str(path)!r} is a pointer of git-lfs in place of the file: run 'git lfs pull'"
        )
    for reader in READERS:
        if reader.recognises(path, head):
            return reader.read(path)
    raise UserError(
        f"{str(path)!r} is in no known format (tried safetensors, a NumPy .npz archive, PyTorch's "
        "zip, TorchScript and legacy files, and llama2.c's version 0): convert it to safetensors"
    )
