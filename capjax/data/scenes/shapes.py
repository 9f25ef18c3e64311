"""Cached stamps: how much of each pixel a shape covers, and how much of that its texture recolours.

A stamp is computed once for (shape, texture, radius in pixels, angle) on a grid four times finer
than the pixels, in integers, and then only read. Shapes live in the unit disc, u to the right and
v down. Letters: D = side of a stamp in pixels (even; the object's centre is its middle).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

OVERSAMPLE = 4  # sub-pixels along each axis
FULL = 256  # coverage of a pixel that lies wholly inside

Array = np.ndarray


def _regular(corners: int, inner: float | None = None, turn: float = -90.0) -> list:
    """A regular polygon in the unit circle; with `inner`, a star with that inner radius."""
    steps = corners if inner is None else 2 * corners
    points = []
    for step in range(steps):
        radius = 1.0 if inner is None or step % 2 == 0 else inner
        angle = math.radians(turn + 360.0 * step / steps)
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return points


_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.83, -0.83), (0.83, -0.83), (0.83, 0.83), (-0.83, 0.83)],
    "triangle": [(0.0, -1.0), (0.98, 0.78), (-0.98, 0.78)],
    "star": _regular(5, inner=0.48),
    "cross": [
        *((-0.34, -0.98), (0.34, -0.98), (0.34, -0.34), (0.98, -0.34), (0.98, 0.34), (0.34, 0.34)),
        *((0.34, 0.98), (-0.34, 0.98), (-0.34, 0.34), (-0.98, 0.34), (-0.98, -0.34)),
        (-0.34, -0.34),
    ],
    "diamond": [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)],
    "hexagon": _regular(6, turn=0.0),
    "arrow": [
        *((-0.98, -0.3), (0.05, -0.3), (0.05, -0.85), (0.98, 0.0)),
        *((0.05, 0.85), (0.05, 0.3), (-0.98, 0.3)),
    ],
    "bar": [(-1.0, -0.36), (1.0, -0.36), (1.0, 0.36), (-1.0, 0.36)],
    "trapezoid": [(-0.46, -0.66), (0.46, -0.66), (1.0, 0.66), (-1.0, 0.66)],
    "chevron": [(-0.95, 0.1), (0.0, -0.85), (0.95, 0.1), (0.95, 0.85), (0.0, -0.1), (-0.95, 0.85)],
    "hourglass": [
        *((-0.85, -0.95), (0.85, -0.95), (0.12, 0.0), (0.85, 0.95), (-0.85, 0.95)),
        (-0.12, 0.0),
    ],
    "bolt": [(0.15, -1.0), (-0.72, 0.2), (-0.08, 0.2), (-0.3, 1.0), (0.72, -0.25), (0.08, -0.25)],
    "house": [
        *((0.0, -1.0), (0.95, -0.15), (0.7, -0.15), (0.7, 0.9), (-0.7, 0.9), (-0.7, -0.15)),
        (-0.95, -0.15),
    ],
    "tee": [
        *((-0.9, -0.9), (0.9, -0.9), (0.9, -0.3), (0.3, -0.3), (0.3, 0.95), (-0.3, 0.95)),
        *((-0.3, -0.3), (-0.9, -0.3)),
    ],
    "elbow": [(-0.85, -0.9), (-0.2, -0.9), (-0.2, 0.25), (0.85, 0.25), (0.85, 0.9), (-0.85, 0.9)],
}


def _heart(u: Array, v: Array) -> Array:
    x, y = 1.2 * u, 0.22 - 1.18 * v
    return (x * x + y * y - 1) ** 3 - x * x * y * y * y <= 0


def _drop(u: Array, v: Array) -> Array:
    bulb = u * u + (v - 0.36) ** 2 <= 0.4
    tip = (v <= 0.1) & (v >= -1.0) & (np.abs(u) <= 0.575 * (v + 1.0) / 1.1)
    return bulb | tip


def _flower(u: Array, v: Array) -> Array:
    return np.hypot(u, v) <= 0.68 + 0.32 * np.cos(5 * np.arctan2(u, -v))


def _gear(u: Array, v: Array) -> Array:
    radius = np.hypot(u, v)
    teeth = np.cos(8 * np.arctan2(v, u)) > 0
    return (radius <= np.where(teeth, 1.0, 0.74)) & (radius >= 0.3)


_CURVES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda u, v: u * u + v * v <= 0.93,
    "heart": _heart,
    "moon": lambda u, v: (u * u + v * v <= 1) & ((u - 0.66) ** 2 + v * v >= 0.6),
    "ring": lambda u, v: (u * u + v * v <= 1) & (u * u + v * v >= 0.3),
    "semicircle": lambda u, v: (u * u + (v - 0.45) ** 2 <= 1) & (v <= 0.45),
    "oval": lambda u, v: u * u + (v / 0.58) ** 2 <= 1,
    "drop": _drop,
    "flower": _flower,
    "gear": _gear,
}


def inside(shape: str, u: Array, v: Array) -> Array:
    """Which of the points (u, v) lie in the shape: bool, of the points' shape."""
    curve = _CURVES.get(shape)
    if curve is not None:
        return curve(u, v)
    points = _POLYGONS[shape]
    result = np.zeros(u.shape, bool)
    # Even-odd rule: count the edges that a ray to the right crosses.
    for (u0, v0), (u1, v1) in zip(points, points[1:] + points[:1], strict=True):
        if v0 != v1:
            crosses = (v0 > v) != (v1 > v)
            result ^= crosses & (u < (u1 - u0) * (v - v0) / (v1 - v0) + u0)
    return result


def _recoloured(shape: str, texture: str, radius: float, px: Array, py: Array) -> Array:
    """Which sub-pixels have the texture's second tone; (px, py) in pixels from the centre.

    Periods are whole pixels and at least four, so that a texture stays legible on small objects. A
    rim keeps the first tone: the outline stays whole, and black on white unlike white on black.
    """
    if texture == "solid":
        return np.zeros(px.shape, bool)
    rim = max(1.6, 0.26 * radius) if texture == "outlined" else max(0.7, 0.1 * radius)
    inner = np.ones(px.shape, bool)
    for angle in np.arange(16) * (math.pi / 8):
        dx, dy = rim * math.cos(angle), rim * math.sin(angle)
        inner &= inside(shape, (px + dx) / radius, (py + dy) / radius)
    if texture == "outlined":
        return inner
    period = max(4, 2 * round(0.28 * radius))
    if texture == "striped":
        return inner & (np.mod(py, period) < period / 2)
    if texture == "checked":
        half = max(3, period / 2)
        return inner & ((np.floor(px / half) + np.floor(py / half)) % 2 == 0)
    period = max(5, period)
    dot_x = np.mod(px + period / 2, period) - period / 2
    dot_y = np.mod(py + period / 2, period) - period / 2
    return inner & (dot_x**2 + dot_y**2 < (0.27 * period) ** 2)


@lru_cache(maxsize=8192)
def stamp(shape: str, texture: str, radius: float, angle: int) -> tuple[Array, Array, Array]:
    """(coverage uint16 [D,D,1] in 0..256, tone uint16 [D,D,1] in 0..256, mask bool [D,D]).

    The mask holds the pixels that are covered at least half; tone is the share of the covered part
    of a pixel that has the texture's second colour.
    """
    half = math.ceil(radius) + 1
    fine = 2 * half * OVERSAMPLE
    # A thousandth of a pixel off the grid: no sample lies exactly on an edge, where rounding
    # could decide differently on another machine.
    axis = (np.arange(fine) + 0.5) / OVERSAMPLE - half + 0.00137
    py, px = np.meshgrid(axis, axis, indexing="ij")
    turn = math.radians(angle)
    cos, sin = math.cos(turn), math.sin(turn)
    px, py = cos * px + sin * py, cos * py - sin * px
    covered = inside(shape, px / radius, py / radius)
    second = covered & _recoloured(shape, texture, radius, px, py)
    cells = (2 * half, OVERSAMPLE, 2 * half, OVERSAMPLE)
    count = covered.reshape(cells).sum((1, 3))
    toned = second.reshape(cells).sum((1, 3))
    coverage = (count * (FULL // OVERSAMPLE**2)).astype(np.uint16)
    tone = (toned * FULL // np.maximum(count, 1)).astype(np.uint16)
    mask = 2 * count >= OVERSAMPLE**2
    for array in (coverage, tone, mask):
        array.setflags(write=False)
    return coverage[..., None], tone[..., None], mask
