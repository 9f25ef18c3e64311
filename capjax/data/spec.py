"""A source as one word on the command line, and as the section of a config that it stands for.

    captions.jsonl                a manifest                     capjax.data.manifest
    "cc12m-{00000..01242}.tar"    WebDataset tars                capjax.data.webdataset
    "part-*.parquet"              Parquet                        capjax.data.parquet
    "train-*.array_record"        what `prepare` wrote           capjax.data.array_records
    tfds:coco_captions:val        a set that TFDS has prepared   capjax.data.tfds_source
    photos/                       a folder of pictures           capjax.data.folder
    config.json                   a section {"name": ..., ...}   whatever it names

Raises `UserError` for what is none of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capjax.config import instantiate
from capjax.errors import UserError

_BY_SUFFIX = {
    ".jsonl": ("capjax.data.manifest", "path"),
    ".tar": ("capjax.data.webdataset", "shards"),
    ".parquet": ("capjax.data.parquet", "paths"),
    ".array_record": ("capjax.data.array_records", "files"),
}


def section_of(text: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config section of a source; `fields` are added to it."""
    return _plain_section(text) | dict(fields or {})


def open_spec(text: str, fields: Mapping[str, Any] | None = None) -> Any:
    """The source itself."""
    return instantiate(section_of(text, fields), "Source", where=f"the source {text!r}")


def parse_fields(items: Sequence[str]) -> dict[str, Any]:
    """`key=value` words -> a dict; a value is JSON if it can be, else text."""
    fields = {}
    for item in items:
        name, given, value = item.partition("=")
        if not given or not name.isidentifier():
            raise UserError(f"cannot read {item!r}: write a field of the source as name=value")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value
    return fields


def _plain_section(text: str) -> dict[str, Any]:
    if text.startswith("tfds:"):
        _, name, *split = text.split(":")
        return {"name": "capjax.data.tfds_source", "builder": name} | (
            {"split": split[0]} if split else {}
        )
    suffix = Path(text).suffix
    if suffix in _BY_SUFFIX:
        module, field = _BY_SUFFIX[suffix]
        return {"name": module, field: text}
    if suffix == ".json":
        try:
            section = json.loads(Path(text).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read a source section from {text!r}: {error}") from error
        if not isinstance(section, dict) or "name" not in section:
            raise UserError(f'{text!r} is no source section: it needs {{"name": module, ...}}')
        return section
    if Path(text).is_dir():
        return {"name": "capjax.data.folder", "paths": [text]}
    raise UserError(
        f"cannot tell what source {text!r} is: give a .jsonl, .tar, .parquet or .array_record file "
        "or pattern, tfds:NAME:SPLIT, a folder of pictures, or a .json with a source section"
    )
