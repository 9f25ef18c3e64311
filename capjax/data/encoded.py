"""Records as they are stored: with the picture's bytes, not its pixels.

Sources that read files offer `encoded(i)`; of others, whose pictures are drawn, the bytes are a PNG
of the pixels, which loses nothing. A set can so be written in another form byte for byte.
"""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import Image

# How picture files begin, and what they are called.
_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
)
OWN_FIELDS = ("key", "image", "captions")


def encoded(source: Any, index: int) -> dict[str, Any]:
    """{key, image: bytes, captions, and what else is JSON} of one record; raises `BadRecord`."""
    if hasattr(source, "encoded"):
        record = source.encoded(index)
    else:
        record = source[index]
        stream = io.BytesIO()
        Image.fromarray(record["image"]).save(stream, "PNG")
        record = {**record, "image": stream.getvalue()}
    others = {k: v for k, v in record.items() if k not in OWN_FIELDS and _is_json(v)}
    return {**{name: record[name] for name in OWN_FIELDS}, **others}


def fields_of(record: dict[str, Any]) -> dict[str, Any]:
    """What a record holds besides key, picture and captions."""
    return {name: value for name, value in record.items() if name not in OWN_FIELDS}


def extension(image: bytes) -> str:
    """Of a picture's file, by its first bytes; "bin" for what is none of the known kinds."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    return next((name for magic, name in _MAGIC if image.startswith(magic)), "bin")


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
