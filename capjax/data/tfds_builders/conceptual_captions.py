"""Conceptual Captions, CC3M and CC12M, from WebDataset tars (Sharma et al. 2018; arXiv 2102.08981).

The folder holds uncompressed tars of pictures and .txt captions, as img2dataset writes them from
the published addresses: its tars are the split "train"; those in a folder of their own are the
split of that folder's name. Of pictures that could not be downloaded some records are incomplete:
up to one in a hundred is left out and logged.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import Any

from capjax.data import webdataset
from capjax.data.skips import SkipBudget
from capjax.data.tfds_builders.captioned import Captioned
from capjax.errors import BadRecord, UserError

MAX_BAD = 0.01


class ConceptualCaptions(Captioned):
    """image, captions, key: the tar and the name in it, "cc12m-00000/000000012"."""

    DESCRIPTION = "Conceptual Captions from the user's WebDataset tars."
    MANUAL_DOWNLOAD_INSTRUCTIONS = __doc__

    def splits(self, folder: str) -> dict:
        tars = sorted(glob.glob(os.path.join(glob.escape(folder), "**", "*.tar"), recursive=True))
        if not tars:
            raise UserError(f"{folder} holds no tar; put the tars of pictures and captions there")
        shards: dict[str, list[str]] = {}
        for path in tars:
            inside = os.path.relpath(path, folder).split(os.sep)
            shards.setdefault("train" if len(inside) == 1 else inside[0], []).append(path)
        return {split: _records(paths) for split, paths in shards.items()}


Builder = ConceptualCaptions


def _records(paths: list[str]) -> Iterator[dict[str, Any]]:
    source = webdataset.Source(paths, max_bad_fraction=MAX_BAD)
    skips = SkipBudget(len(source), MAX_BAD)
    for i in range(len(source)):
        try:
            yield source.encoded(i)
        except BadRecord as error:
            skips.skip(error.key, error.reason)
