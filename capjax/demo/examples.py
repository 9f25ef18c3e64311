"""Pictures to begin with: those that the user names, or some that the run was evaluated on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from capjax.config import instantiate
from capjax.data.folder import Source as Folder
from capjax.errors import BadRecord, UserError

COUNT = 8


def write_examples(config: Any, paths: Sequence[str], folder: Path) -> list[Path]:
    """Up to `COUNT` pictures as files in `folder`; none where the run's data is not at hand.

    paths: pictures and folders of them, or nothing for the data of the run's evaluators, or else
    its training data. UserError for paths without a picture.
    """
    if paths:
        return _written(Folder(paths), folder)
    sections = [section.get("data", None) for section in config.evals.values()]
    for section in [*filter(None, sections), config.data.train]:
        if not section.get("name", ""):
            continue
        try:
            source = instantiate(section, "Source", where=f"the source {section.name}")
            written = _written(source, folder)
        except (UserError, OSError):
            continue  # the run was trained elsewhere: the page works without its data
        if written:
            return written
    return []


def _written(source: Any, folder: Path) -> list[Path]:
    written: list[Path] = []
    for place in _spread(len(source)):
        try:
            record = source[place]
        except BadRecord:
            continue
        if isinstance(record.get("image"), np.ndarray):
            name = re.sub(r"[^\w.-]+", "-", Path(str(record["key"])).stem).strip("-.")
            path = folder / f"{len(written)}-{name[-60:]}.png"
            Image.fromarray(record["image"]).save(path)
            written.append(path)
        if len(written) == COUNT:
            break
    return written


def _spread(length: int) -> Iterator[int]:
    """Places over the whole set, which may be sorted; a few more than are needed."""
    yield from dict.fromkeys(
        np.linspace(0, length - 1, 2 * COUNT).astype(int).tolist() if length else []
    )
