"""What a stage with a model of ours is: the run directory that it opens, told by its content.

A run may move or be copied, and be trained on; its results are kept under a sum over its files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from capjax.checksums import sha256
from capjax.errors import UserError


def run_identity(directory: Path | str) -> dict[str, str]:
    """{"run": the folder's name, "weights": a sum over its newest checkpoint, config, tokenizer}.

    JAX is not needed, since the process that asks may not be the one that holds the devices.
    """
    directory = Path(directory)
    steps = [p for p in (directory / "checkpoints").glob("*") if p.name.isdecimal()]
    if not (directory / "config.json").is_file() or not steps:
        raise UserError(f"{str(directory)!r} is no run directory with a checkpoint: train it first")
    newest = max(steps, key=lambda step: int(step.name))
    # What else lies there is the optimiser's and dates: they change nothing that is written.
    files = [directory / "config.json", directory / "tokenizer.model"]
    for item in ("params", "ema"):
        files += sorted(p for p in (newest / item).rglob("*") if p.is_file())
    found = hashlib.sha256()
    for path in files:
        if path.is_file():
            found.update(f"{path.relative_to(directory)} {sha256(path)}\n".encode())
    return {"run": directory.name, "step": newest.name, "weights": found.hexdigest()[:16]}
