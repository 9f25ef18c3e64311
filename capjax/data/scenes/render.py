"""From a scene graph to pixels, masks and boxes, in integer arithmetic (the same on any machine).

Letters: S = side of the picture in pixels, N = number of objects, D = side of a stamp.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from capjax.data.scenes.graph import Scene
from capjax.data.scenes.shapes import FULL, stamp
from capjax.data.scenes.vocabulary import BACKGROUND_COLOURS, COLOURS

NOISE = 28  # largest distance of a noisy background's pixel from its colour, in grey levels


def render(scene: Scene, image_size: int, noise_seed: int):
    """(image uint8 [S,S,3], masks bool [N,S,S] of the visible parts, boxes float32 [N,4]).

    Larger objects are painted first, so that none is hidden by a larger one. A box is
    (x0, y0, x1, y1) as fractions of the side, tight around the object's visible pixels.
    """
    image = _background(scene, image_size, noise_seed)
    count = len(scene.objects)
    masks = np.zeros((count, image_size, image_size), bool)
    order = sorted(range(count), key=lambda i: -scene.objects[i].radius)
    for painted, i in enumerate(order):
        item = scene.objects[i]
        coverage, tone, mask = stamp(
            item.shape, item.texture, round(item.radius * image_size, 3), item.angle
        )
        half = len(mask) // 2
        left, top = round(item.x * image_size) - half, round(item.y * image_size) - half
        right, bottom = left + 2 * half, top + 2 * half
        if left < 0 or top < 0 or right > image_size or bottom > image_size:
            rows = slice(max(0, -top), 2 * half - max(0, bottom - image_size))
            columns = slice(max(0, -left), 2 * half - max(0, right - image_size))
            coverage, tone, mask = (part[rows, columns] for part in (coverage, tone, mask))
            left, top = max(0, left), max(0, top)
            right, bottom = min(image_size, right), min(image_size, bottom)
        first, step = _tones(item.colour)
        paint = first if item.texture == "solid" else first + (tone * step >> 8)
        patch = image[top:bottom, left:right]
        # 255 * 256 fits in uint16: no product below overflows.
        patch[...] = (patch * (FULL - coverage) + paint.astype(np.uint16) * coverage) >> 8
        masks[i, top:bottom, left:right] = mask
        for behind in order[:painted]:
            masks[behind, top:bottom, left:right] &= ~mask
    return image, masks, _boxes(masks)


def _boxes(masks: np.ndarray) -> np.ndarray:
    """The tight box of every mask, float32 [N,4] in fractions of the side."""
    size = masks.shape[-1]
    columns, rows = masks.any(1), masks.any(2)  # [N,S] each
    boxes = np.empty((len(masks), 4), np.float32)
    boxes[:, 0] = columns.argmax(1)
    boxes[:, 1] = rows.argmax(1)
    boxes[:, 2] = size - columns[:, ::-1].argmax(1)
    boxes[:, 3] = size - rows[:, ::-1].argmax(1)
    boxes /= size
    return boxes


@lru_cache(maxsize=64)
def _tones(colour: str) -> tuple[np.ndarray, np.ndarray]:
    """(first tone int32 [3], second minus first int32 [3]): near white on dark, dark on light."""
    first = np.array(COLOURS[colour], np.int32)
    luma = int(first @ np.array((299, 587, 114))) // 1000
    second = first * 2 // 5 if luma > 175 else first // 5 + 204
    return first, second - first


@lru_cache(maxsize=256)
def _canvas(kind: str, colour: str, size: int, falling: bool) -> np.ndarray:
    """A background without its noise: int16 [S,S,3], never written to."""
    base = np.array(BACKGROUND_COLOURS[colour], np.int16)
    offset = np.zeros((size, size, 1), np.int16)
    if kind == "shaded":
        ramp = (np.arange(size) * 84 // size - 42).astype(np.int16)
        offset += (ramp if falling else ramp[::-1])[:, None, None]
    elif kind == "striped":
        column = np.arange(size)[None, :] + (np.arange(size)[:, None] if falling else 0)
        offset += np.where(column * 12 // size % 2, 20, -20).astype(np.int16)[..., None]
    canvas = np.clip(base + offset, 0, 255).astype(np.int16)
    canvas.setflags(write=False)
    return canvas


def _background(scene: Scene, size: int, noise_seed: int) -> np.ndarray:
    """A fresh picture of the background alone: uint8 [S,S,3]."""
    canvas = _canvas(scene.background, scene.background_colour, size, bool(noise_seed & 1))
    if scene.background != "noisy":
        return canvas.astype(np.uint8)
    # NumPy promises that a bit generator's raw stream never changes, unlike Generator's methods.
    raw = np.random.Philox(key=noise_seed).random_raw(-(-size * size // 8))
    noise = raw.astype("<u8").view(np.uint8)[: size * size].reshape(size, size, 1)
    noise = noise.astype(np.int16) * (2 * NOISE + 1) // 256 - NOISE
    return np.clip(canvas + noise, 0, 255).astype(np.uint8)
