"""PyTorch's checkpoint files (`.bin`, `.pt`, `.pth`, `.ckpt`), read without torch; no code is run.

Three containers: the zip of torch >= 1.6 (`data.pkl`, and one entry `data/KEY` a storage, stored
uncompressed), TorchScript archives, which are the same with modules in place of a dict (so are
OpenAI's CLIP files), and the legacy format before 1.6: pickles one after another, then the
storages, each behind its length.

Source: github pytorch/pytorch, `torch/serialization.py`.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from capjax.errors import UserError
from capjax.weights.files import zip_entries
from capjax.weights.files.mapped import MappedFile, Region, Source
from capjax.weights.files.tensors import Tensors
from capjax.weights.files.torch_pickles import Storage, lazy, unpickler
from capjax.weights.files.torch_state import names_of_state

PICKLE = "/data.pkl"
PICKLE_MAGIC = b"\x80"
MAX_PICKLE_BYTES = 256_000_000  # names and places only; a 70B model's is some 100 kB

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
LEGACY_COUNT = struct.Struct("<q")


def recognises(path: Path, head: bytes) -> bool:
    """A pickle, or a zip with one of torch's name."""
    if head.startswith(zip_entries.MAGIC):
        return any(name.endswith(PICKLE) for name in zip_entries.entries(path))
    return head.startswith(PICKLE_MAGIC)


def read(path: Path) -> Tensors:
    """The tensors of a state dict, also of one under "state_dict", "model" or "module".

    Raises:
      UserError: the file is damaged, of another kind, or holds code.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == zip_entries.MAGIC
    root, storages = _zip(path) if zipped else _legacy(path)
    state = names_of_state(root, path)
    return Tensors({n: lazy(n, t, storages, path) for n, t in state.items()}, "torch", [path])


def _zip(path: Path) -> tuple[Any, dict[str, Source]]:
    """What the archive holds, and its storages' bytes by key."""
    entries = zip_entries.entries(path)
    folders = [n.removesuffix(PICKLE) for n in entries if n.count("/") == 1 and n.endswith(PICKLE)]
    if len(folders) != 1:
        raise UserError(f"{str(path)!r} is not torch's archive of one object: download it again")
    folder = folders[0]
    order = entries.get(f"{folder}/byteorder")
    if order is not None and order.read(0, order.size).tobytes() != b"little":
        raise _big_endian(path)
    source = entries[folder + PICKLE]
    if source.size > MAX_PICKLE_BYTES:
        raise UserError(
            f"{str(path)!r} has a pickle of {source.size} bytes and was refused: convert it to "
            "safetensors"
        )
    root = unpickler(memoryview(source.read(0, source.size)), path, {}).load()
    data = f"{folder}/data/"
    return root, {n.removeprefix(data): s for n, s in entries.items() if n.startswith(data)}


def _legacy(path: Path) -> tuple[Any, dict[str, Source]]:
    """The same of a legacy file."""
    file = MappedFile(path)
    storages: dict[str, Storage] = {}
    reader = unpickler(memoryview(file.read(0, file.size)), path, storages)
    if reader.load() != LEGACY_MAGIC or reader.load() != LEGACY_VERSION:
        raise UserError(
            f"{str(path)!r} is a pickle that torch.save did not write: convert it to safetensors"
        )
    system = reader.load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _big_endian(path)
    root, keys = reader.load(), reader.load()
    places: dict[str, Source] = {}
    at = reader.at
    for key in keys if isinstance(keys, list) else []:
        if type(key) is not str or key not in storages or key in places:
            raise UserError(f"{str(path)!r} lists storages that it lacks: download it again")
        start = at + LEGACY_COUNT.size
        size = storages[key].count * storages[key].dtype.itemsize
        if start + size > file.size:
            raise UserError(f"{str(path)!r} is cut short: download it again")
        if LEGACY_COUNT.unpack(file.read(at, start).tobytes())[0] != storages[key].count:
            raise UserError(f"{str(path)!r} has a storage of another size: download it again")
        places[key] = Region(file, start, size)
        at = start + size
    return root, places


def _big_endian(path: Path) -> UserError:
    return UserError(
        f"{str(path)!r} does not say that its numbers are little-endian: write it anew on a "
        "little-endian machine"
    )
