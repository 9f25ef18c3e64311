"""Which file of a downloaded folder is the checkpoint.

Names of Hugging Face and OpenCLIP come first, safetensors before the formats with pickles; after
them a file that is the only one of its kind.
"""

from __future__ import annotations

from pathlib import Path

from capjax.errors import UserError
from capjax.weights.files import shards

KNOWN_NAMES = (
    "model.safetensors",
    "model.safetensors" + shards.SUFFIX,
    "open_clip_model.safetensors",
)
KNOWN_TORCH_NAMES = (
    "pytorch_model.bin",
    "pytorch_model.bin" + shards.SUFFIX,
    "open_clip_pytorch_model.bin",
)
TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


def checkpoint_in(folder: Path) -> Path:
    """The file to open in `folder`.

    Raises:
      UserError: the folder cannot be read, there is none, or there are several without an index.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise UserError(f"cannot read {str(folder)!r}: {error.strerror or error}") from error
    for known, suffixes in (
        (KNOWN_NAMES, (".safetensors",)),
        (KNOWN_TORCH_NAMES, TORCH_SUFFIXES),
        ((), (".npz",)),
    ):
        for name in known:
            if folder / name in files:
                return folder / name
        # Shards are never taken one by one: their index stands for them.
        found = [f for f in files if f.name.endswith(tuple(s + shards.SUFFIX for s in suffixes))]
        found = found or [f for f in files if f.name.endswith(suffixes)]
        if len(found) > 1:
            raise UserError(
                f"{str(folder)!r} holds several checkpoints ({_listed(found)}) and no index of "
                "shards: give the path of one of them, or download the index"
            )
        if found:
            return found[0]
    kinds = ", ".join("*" + suffix for suffix in (".safetensors", *TORCH_SUFFIXES, ".npz"))
    raise UserError(
        f"{str(folder)!r} holds no checkpoint ({kinds}): give the folder or file of one"
    )


def _listed(files: list[Path], most: int = 5) -> str:
    names = [f.name for f in files[:most]]
    return ", ".join(names) + (f" and {len(files) - most} more" if len(files) > most else "")
