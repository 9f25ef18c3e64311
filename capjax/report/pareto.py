"""The guidance trade-off as a picture: agreement with references against specificity.

Left, a reference metric (CIDEr) against caption -> picture recall; right, the same against
CLIPScore; one point a guidance scale, joined in the order of the scale (guiding, arXiv 2307.16686,
Figure 1 right and Figure 2). Where rows carry `intervals` {metric: [low, high]}, they are drawn as
thin bars.
"""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from capjax.errors import UserError
from capjax.report import table
from capjax.report.table import Row, Rows

# Blue and vermilion of Okabe and Ito (2008): told apart in every common colour blindness; the
# marker and the line style differ as well.
_OURS = {"color": "#0072B2", "marker": "o", "linestyle": "-", "label": "this run"}
_PUBLISHED = {
    "color": "#D55E00",
    "marker": "s",
    "linestyle": "--",
    "label": "published",
    "markerfacecolor": "white",
}
_LABEL_DISTANCES = (6, 9, 15, 24, 36)  # points from the marker, nearest first
_GAP = np.array([-2, -1, 2, 1])  # pixels left free around a label
_ANGLES = np.pi / 4 + np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def plot(
    rows: Rows,
    path: str | os.PathLike,
    x: str = "cider",
    y: str = "recall_at_1",
    published: Rows | None = None,
) -> None:
    """Writes a PNG of `y` over `x` and, where measured, of CLIPScore over `x`.

    Where `y` was measured only in the captioner's own space, that (`own_` + y) is drawn.

    rows: dicts as `table` takes them; a row that lacks a metric is left out of that panel.
    published: rows of the same kind, drawn as a second curve.

    Raises `UserError` where no row has both `x` and `y`.
    """
    if not _having(rows, y) and _having(rows, f"own_{y}"):
        y = f"own_{y}"
    clip = "own_clipscore" if y.startswith("own_") else "clipscore"
    curves = [(table.ordered(rows), _OURS)]
    if published:
        curves.append((table.ordered(published), _PUBLISHED))
    if not _having(rows, x, y):
        raise UserError(f"no row of the results has both {x!r} and {y!r}: nothing to plot")
    panels = [y] + ([clip] if clip != y and _having(rows, x, clip) else [])

    figure = Figure(figsize=(5.2 * len(panels), 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, name in zip(axes, panels, strict=True):
        for curve, style in curves:
            _draw(ax, _having(curve, x, name), x, name, style)
        ax.set_xlabel(_label(x))
        ax.set_ylabel(_label(name))
        ax.margins(0.14)
        ax.grid(color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    if published:
        axes[0].legend(frameon=False, loc="best")
    figure.suptitle("One point per guidance scale γ; better is up and to the right", fontsize=11)

    figure.draw_without_rendering()  # settles the layout, in which labels are then placed
    figure.set_layout_engine("none")
    for ax, name in zip(axes, panels, strict=True):
        points = [
            (row["guidance_scale"], _scaled(row, x), _scaled(row, name), style["color"])
            for curve, style in curves
            for row in _having(curve, x, name)
        ]
        _label_points(ax, points)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _having(rows: Rows, *names: str) -> list[Row]:
    return [
        row
        for row in rows
        if all(isinstance(row.get(n), int | float) and math.isfinite(row[n]) for n in names)
    ]


def _scaled(row: Row, name: str) -> float:
    return row[name] * table.column(name).scale


def _label(name: str) -> str:
    column = table.column(name)
    heading = column.heading + (", caption → picture" if "recall_at" in name else "")
    return f"{heading} ({column.unit})" if column.unit else heading


def _draw(ax: Axes, rows: Rows, x: str, y: str, style: dict) -> None:
    xs, ys = [_scaled(row, x) for row in rows], [_scaled(row, y) for row in rows]
    ax.plot(xs, ys, markersize=6, linewidth=1.5, zorder=3, **style)
    for row, at_x, at_y in zip(rows, xs, ys, strict=True):
        intervals = row.get("intervals", {})
        faint = {"color": style["color"], "alpha": 0.35, "linewidth": 1, "zorder": 2}
        if x in intervals:
            low, high = (end * table.column(x).scale for end in intervals[x])
            ax.plot([low, high], [at_y, at_y], **faint)
        if y in intervals:
            low, high = (end * table.column(y).scale for end in intervals[y])
            ax.plot([at_x, at_x], [low, high], **faint)


def _label_points(ax: Axes, points: list[tuple[float, float, float, str]]) -> None:
    """Writes each point's γ where it covers no marker, no line and no other label.

    Of all directions and distances the nearest free one is taken, or the one that covers least.
    Everything is reckoned in pixels; a box is (left, bottom, right, top).
    """
    renderer = ax.figure.canvas.get_renderer()
    pixel = ax.figure.dpi / 72  # pixels in a point
    spots = [ax.transData.transform(point[1:3]) for point in points]
    taken = [_around(np.array(spots), 5 * pixel)]
    taken += [_around(_along(ax, line.get_xydata()), pixel) for line in ax.lines]
    if legend := ax.get_legend():
        taken.append([legend.get_window_extent(renderer).extents])
    taken = np.concatenate(taken)
    inside = ax.get_window_extent(renderer).extents
    for (scale, x, y, color), spot in zip(points, spots, strict=True):
        label = ax.annotate(
            f"γ={scale:g}",
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            color=color,
        )
        extent = label.get_window_extent(renderer)
        half = np.array([extent.width, extent.height]) / 2
        # The label's edge, not its middle, keeps the distance.
        shifts = np.concatenate([_CIRCLE * (far * pixel + half) for far in _LABEL_DISTANCES])
        boxes = np.concatenate([spot + shifts - half, spot + shifts + half], axis=1)
        covered = _overlaps(boxes, taken).sum(1) + 100.0 * _outside(boxes, inside)
        chosen = int(np.argmin(covered))
        label.set_position(shifts[chosen] / pixel)
        if chosen >= 2 * len(_CIRCLE):  # far away: a line says which point is meant
            start = spot + shifts[chosen] - np.sign(shifts[chosen]) * half
            ends = ax.transData.inverted().transform([start, spot])
            ax.plot(
                *ends.T, color=color, alpha=0.4, linewidth=0.8, zorder=1, scalex=False, scaley=False
            )
        taken = np.concatenate([taken, boxes[chosen : chosen + 1] + _GAP])


def _around(centres: np.ndarray, radius: float) -> np.ndarray:
    return np.concatenate([centres - radius, centres + radius], axis=1)


def _along(ax: Axes, vertices: np.ndarray) -> np.ndarray:
    """Spots every few pixels along a line given in data coordinates."""
    corners = ax.transData.transform(vertices)
    pieces = [corners]
    for start, end in itertools.pairwise(corners):
        steps = 2 + int(np.hypot(*(end - start)) / 4)
        pieces.append(np.linspace(start, end, steps))
    return np.concatenate(pieces)


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of N boxes overlap which of M: [N,M] of booleans."""
    a, b = boxes[:, None], others[None]
    return ((a[..., :2] < b[..., 2:]) & (b[..., :2] < a[..., 2:])).all(-1)


def _outside(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] < frame[:2]).any(1) | (boxes[:, 2:] > frame[2:]).any(1)
