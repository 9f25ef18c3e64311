"""All families of published checkpoints, and which of them one belongs to."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from capjax.errors import UserError
from capjax.weights import preprocess
from capjax.weights.files import open_tensors
from capjax.weights.plan import CONFIG, NotThisFamily, Plan, Source, read_json

# Modules of this package. The order matters where names are shared: CoCa's begin as CLIP's do.
MODULES = (
    "coca",
    "clip",
    "clip_transformers",
    "siglip",
    "siglip_big_vision",
    "blip",
    "blip_matching",
    "vit",
    "t5",
    "bert",
    "gpt2",
    "llama",
)


def open_source(path: Path | str, tokenizer: Path | str | None = None) -> Source:
    """The checkpoint at `path`, a file or a folder, with the JSON files beside it."""
    path = Path(path)
    tensors = open_tensors(path)
    folder = path if path.is_dir() else path.parent
    tokenizer = Path(tokenizer) if tokenizer else None
    if tokenizer is not None and not tokenizer.exists():
        raise UserError(f"there is no tokenizer at {str(tokenizer)!r}: give a file that is there")
    return Source(
        folder,
        tensors,
        read_json(folder / CONFIG) or tensors.config or {},
        preprocess.read(folder),
        tokenizer,
    )


def names() -> list[str]:
    """Of all families, as --family takes them."""
    return [_module(module).FAMILY for module in MODULES]


def recognise(source: Source, family: str = "") -> Plan:
    """The plan of the family that the checkpoint belongs to, or of the one that is named.

    UserError with each family's reason if it belongs to none.
    """
    if family and family not in names():
        raise UserError(f"unknown family {family!r}: choose one of {', '.join(names())}")
    reasons = []
    for module in map(_module, MODULES):
        if family not in ("", module.FAMILY):
            continue
        try:
            return module.plan(source)
        except NotThisFamily as reason:
            reasons.append(f"{module.FAMILY}: {reason}")
    raise UserError(
        f"{str(source.folder)!r} is of no known family ({'; '.join(reasons)}): see --help for "
        "what can be imported"
    )


def _module(name: str) -> Any:
    return importlib.import_module(f"capjax.weights.{name}")
