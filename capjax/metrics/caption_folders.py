"""Rows of captions from a folder of parts, as `capjax.caption` fills it.

    settings.json                    records, part_size, format, and what the captions depend on
    part-00000.jsonl .. or .parquet  rows, one or several a picture

Raises `UserError` for a folder that is none of these, or is not finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capjax.errors import UserError


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """All rows, part by part."""
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        count = -(-settings["records"] // settings["part_size"])
        suffix = settings["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is no folder that capjax.caption has filled: name one, or a file"
        ) from error
    parts = sorted(folder.glob(f"part-*.{suffix}"))
    if len(parts) != count:
        raise UserError(
            f"{folder} has {len(parts)} of its {count} parts: let capjax.caption finish it first"
        )
    for part in parts:
        yield from _parquet(part) if suffix == "parquet" else _jsonl(part)


def _jsonl(part: Path) -> Iterator[dict[str, Any]]:
    for line in part.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _parquet(part: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise UserError(
            "Parquet needs the package pyarrow: pip install 'capjax[parquet]'"
        ) from error
    yield from pq.read_table(part).to_pylist()
