"""Checkpoints in several files, with the index that Hugging Face writes beside them.

The index is JSON: `weight_map` gives for each tensor the name of the file that holds it. What a
shard holds beyond the index is not read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from capjax.errors import UserError
from capjax.weights.files import strict_json
from capjax.weights.files.tensors import Tensors

SUFFIX = ".index.json"


def read_index(path: Path, open_file: Callable[[Path], Tensors]) -> Tensors:
    """All tensors that an index names; `open_file` opens one shard.

    Raises:
      UserError: the index is damaged, names a file outside its folder or one that is absent, or a
        tensor that its file lacks.
    """
    weight_map = _weight_map(path)
    shards = {}
    for shard in dict.fromkeys(weight_map.values()):
        if shard in ("", ".", "..") or "/" in shard or "\\" in shard or "\0" in shard:
            raise UserError(
                f"{str(path)!r} names the shard {shard!r}, which is not in the index's own folder: "
                "use an index that names files beside it"
            )
        if not (path.parent / shard).is_file():
            raise UserError(
                f"{str(path)!r} names the shard {shard!r}, which is not beside it: download it too"
            )
        shards[shard] = open_file(path.parent / shard)
    tensors = {}
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise UserError(
                f"the shard {shard!r} lacks the tensor {name!r} that {str(path)!r} places there: "
                "download index and shards of the same version"
            )
        tensors[name] = shards[shard].lazy(name)
    files = [file for opened in shards.values() for file in opened.files]
    return Tensors(tensors, next(iter(shards.values())).format, files)


def _weight_map(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > strict_json.MAX_BYTES:
            raise UserError(f"{str(path)!r} is too large for an index: download it again")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    weight_map = strict_json.json_object(data, path, "the index").get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise UserError(
            f"{str(path)!r} has no 'weight_map' from tensors to files: give the index of a sharded "
            "checkpoint"
        )
    return weight_map
