"""What the configs of configs/capsfusion share: where each kind of captions is had."""

from __future__ import annotations

from typing import Any

from capjax.errors import UserError
from experiments.capsfusion.worlds import KINDS

# kind -> column that configs/curate/capsfusion.py writes
COLUMNS = {
    "alt_text": "alt_text",
    "synthetic": "caption",
    "rewritten": "rewritten",
    "mixed": "mixed",
    "fused": "fused",
}


def curated(data: dict[str, Any], path: str, column: str, limit: int) -> dict[str, Any]:
    """The section of a source's pictures with a column of what a pipeline wrote of them."""
    return dict(name="capjax.curate.pairs", data=data, path=path, column=column, limit=limit)


def small_world(captions: str, limit: int, path: str = "") -> dict[str, Any]:
    """The first `limit` pictures of the small world; their captions are those of the pipeline's
    folder `path`, or by default made up."""
    if captions not in KINDS:
        raise UserError(f"captions={captions!r} must be one of {', '.join(KINDS)}")
    world = dict(name="experiments.capsfusion.worlds", split="train", size=limit)
    if path and captions in COLUMNS and captions != "rewritten":
        return curated(world, path, COLUMNS[captions], limit)
    return world | dict(captions=captions)
