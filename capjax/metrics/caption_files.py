"""Candidate and reference captions from files: COCO's two formats, mappings, and JSON lines.

  references   COCO annotations   {"images": [{"id": 1}, ...], "annotations": [{"image_id": 1,
                                  "caption": "..."}, ...]}
  candidates   COCO results       [{"image_id": 1, "caption": "..."}, ...]
  both         a mapping          {"1": ["...", "..."], ...} or {"1": "...", ...}
  both         JSON lines         {"image_id": 1, "caption": "..."} or {..., "captions": [...]}

In place of `image_id` a line may have `key`, `id` or `image`, as the project's own files do. Ids
are compared as text: 1 and "1" are one image. A reference file may give an image's captions in
several places; a candidate file gives each image once, with one caption or a list of candidates.
What capjax.caption writes may give several captions of an image in lines of their own, which are
numbered then, {..., "sample": 0}; captions of several guidance scales are one system a scale; and
its folder of parts is read as a file. Files may be compressed (.gz).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capjax.errors import UserError
from capjax.metrics.caption_folders import read_rows
from capjax.metrics.references import listed

Captions = dict[str, list[str]]  # image id -> captions
_IDS = ("image_id", "key", "id", "image")


def read_references(path: str | Path) -> Captions:
    """{image id: its reference captions}, in the order of the file.

    Raises:
      UserError: no such file, no JSON, another layout, no captions, a caption that is not a string,
        an annotation that stands twice, or an image without captions.
    """
    content = _parse(path)
    if not _is_coco_annotations(content):
        return _group(path, [entry[:2] for entry in _entries(path, content)])
    annotations = content["annotations"]
    if not isinstance(annotations, list):
        raise UserError(f"{path}: 'annotations' is no list: give COCO's caption annotations")
    ids = [entry["id"] for entry in annotations if isinstance(entry, dict) and "id" in entry]
    _require_unique(path, "annotation", [str(number) for number in ids])
    images = content.get("images", [])
    if not isinstance(images, list) or not all(isinstance(i, dict) and "id" in i for i in images):
        raise UserError(f"{path}: 'images' is no list of objects with an id")
    image_ids = [_as_id(path, image["id"]) for image in images]
    _require_unique(path, "image", image_ids)
    found = _group(path, [entry[:2] for entry in _entries(path, annotations)])
    bare = [image_id for image_id in image_ids if image_id not in found]
    if bare:
        raise UserError(
            f"{path}: {len(bare)} images have no caption ({listed(bare)}):"
            " take them out of 'images'"
        )
    return found


def read_candidates(path: str | Path) -> dict[str, Captions]:
    """{system: {image id: its candidates}}; one system "", or one a guidance scale ("@1.5").

    Raises:
      UserError: as `read_references`, an image that stands twice, or a folder that is not
        finished.
    """
    content = list(read_rows(Path(path))) if Path(path).is_dir() else _parse(path)
    if _is_coco_annotations(content):
        content = content["annotations"]
    entries = list(_entries(path, content))
    if not entries:
        raise UserError(f"{path} has no captions: give at least one")
    systems: dict[str, list[tuple[str, list[str], int | None]]] = {}
    scales = {scale for _, _, scale, _ in entries}
    for image_id, captions, scale, sample in entries:
        name = f"@{scale:g}" if len(scales) > 1 else ""
        systems.setdefault(name, []).append((image_id, captions, sample))
    for own in systems.values():
        numbered = [i if sample is None else f"{i}, sample {sample}" for i, _, sample in own]
        _require_unique(path, "image", numbered)
        own.sort(key=lambda entry: entry[2] or 0)
    return {name: _group(path, [entry[:2] for entry in own]) for name, own in systems.items()}


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
      UserError: no such file, or no JSON.
    """
    try:
        return _loads(path, _text(path))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): is it complete?") from error


def _loads(path: str | Path, text: str) -> Any:
    """JSON in which no object has a field twice: the last would win in silence."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _require_unique(path, "field or image", [name for name, _ in pairs])
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def _text(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
        if str(path).endswith(".gz"):
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: convert it ({error.reason})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not text.strip():
        raise UserError(f"{path} is empty: give captions")
    return text


def _parse(path: str | Path) -> Any:
    """The content of a JSON file, or the list of a JSON-lines file's objects."""
    text = _text(path)
    try:
        return _loads(path, text)
    except ValueError as whole:
        lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        if len(lines) == 1 or not lines[0][1].rstrip().endswith("}"):
            raise UserError(f"{path} is no JSON ({whole}): is it complete?") from whole
        content = []
        for number, line in lines:
            try:
                content.append(_loads(path, line))
            except ValueError as error:
                raise UserError(f"{path}, line {number} is no JSON ({error})") from error
        return content


def _is_coco_annotations(content: Any) -> bool:
    return isinstance(content, dict) and "annotations" in content


def _is_line(content: dict[str, Any]) -> bool:
    """Whether an object is the only line of a JSON-lines file, not a mapping."""
    return bool(set(content) & set(_IDS)) and bool(set(content) & {"caption", "captions"})


def _entries(
    path: str | Path, content: Any
) -> Iterator[tuple[str, list[str], float | None, int | None]]:
    """(image id, captions, guidance scale or None, number of a sample or None) of each entry."""
    if isinstance(content, dict) and not _is_line(content):
        for image_id, captions in content.items():
            yield image_id, _as_captions(path, image_id, captions), None, None
        return
    for place, entry in enumerate(content if isinstance(content, list) else [content]):
        if not isinstance(entry, dict):
            raise UserError(
                f"{path}: entry {place} is a {type(entry).__name__}: give objects with an image_id"
                " and a caption"
            )
        name = next((name for name in _IDS if name in entry), None)
        if name is None or ("caption" in entry) == ("captions" in entry):
            raise UserError(
                f"{path}: entry {place} has the fields {', '.join(entry) or 'none'}: give an"
                " image_id and either a caption or a list of captions"
            )
        image_id = _as_id(path, entry[name])
        captions = entry["caption"] if "caption" in entry else entry["captions"]
        scale = entry.get("guidance_scale")
        if isinstance(scale, bool) or not isinstance(scale, int | float | None):
            raise UserError(f"{path}: the guidance_scale of image {image_id!r} is no number")
        sample = entry.get("sample")
        if isinstance(sample, bool) or not isinstance(sample, int | None):
            raise UserError(f"{path}: the sample of image {image_id!r} is no whole number")
        yield image_id, _as_captions(path, image_id, captions), scale, sample


def _as_id(path: str | Path, image_id: Any) -> str:
    if isinstance(image_id, bool) or not isinstance(image_id, int | str):
        raise UserError(
            f"{path}: an image id is a {type(image_id).__name__}: ids must be numbers or strings"
        )
    return str(image_id)


def _as_captions(path: str | Path, image_id: str, captions: Any) -> list[str]:
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        wrong = captions
        if isinstance(captions, list):
            wrong = next(text for text in captions if not isinstance(text, str))
        raise UserError(
            f"{path}: a caption of image {image_id!r} is a {type(wrong).__name__}: captions must be"
            " strings"
        )
    if not captions:
        raise UserError(f"{path}: image {image_id!r} has no caption: give one or drop the image")
    return captions


def _group(path: str | Path, entries) -> Captions:
    found: Captions = {}
    for image_id, captions in entries:
        found.setdefault(image_id, []).extend(captions)
    if not found:
        raise UserError(f"{path} has no captions: give at least one")
    return found


def _require_unique(path: str | Path, what: str, ids: list[str]) -> None:
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(
            f"{path}: {len(twice)} {what} {'names' if 'field' in what else 'ids'} stand more than"
            f" once ({listed(twice)}): drop the duplicates"
            + (", or give an image's candidates as one list" if what == "image" else "")
        )
