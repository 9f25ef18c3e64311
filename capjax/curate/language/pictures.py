"""Pictures in what a model on a server is asked, as OpenAI's chat completions take them.

A picture becomes a PNG in a data URL: without loss, and the same bytes for the same pixels.
Letters: H, W height and width in pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from capjax.curate.language.request import Message


def with_picture(messages: Sequence[Message], image: np.ndarray, side: int) -> tuple[Message, ...]:
    """The messages with a picture, uint8 [H,W,3], before the words of the last one."""
    *before, last = messages
    content = [part_of(image, side), {"type": "text", "text": last["content"]}]
    return (*before, {**last, "content": content})


def part_of(image: np.ndarray, side: int) -> dict[str, Any]:
    """A picture as a part of a message, made smaller where its longer side exceeds `side`."""
    from PIL import Image

    picture = Image.fromarray(image)
    if max(picture.size) > side:
        scale = side / max(picture.size)
        size = [max(1, round(length * scale)) for length in picture.size]
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    data = io.BytesIO()
    picture.save(data, "PNG")
    url = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}
