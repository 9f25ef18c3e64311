"""Named curves of rows over two metrics, several panels in one picture, as PNG or SVG.

A curve is a list of rows as `table` takes them, drawn in their order; each point may carry a label.
Lines of reference (what people score, say) are drawn across a panel. Colours are those of Okabe and
Ito (2008), told apart in every common colour blindness; markers and line styles differ as well.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from capjax.errors import UserError
from capjax.report import table
from capjax.report.table import Row, Rows

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclasses.dataclass(frozen=True)
class Curve:
    """rows: in the order in which they are joined; published ones are dashed and hollow."""

    name: str
    rows: Rows
    published: bool = False
    joined: bool = True
    label: Callable[[Row], str] = lambda row: ""


@dataclasses.dataclass(frozen=True)
class Panel:
    """`y` over `x`, both keys of rows; lines: {name: a row} of reference."""

    x: str
    y: str
    title: str = ""
    lines: Mapping[str, Row] = dataclasses.field(default_factory=dict)
    curves: Sequence[Curve] | None = None  # of its own; None: those of the figure
    log_x: bool = False


def draw(
    paths: Sequence[str | os.PathLike], panels: Sequence[Panel], curves: Sequence[Curve] = ()
) -> None:
    """Writes one picture to each of `paths`, whose suffix (.png, .svg) is its form.

    A row that lacks a panel's metric is left out there. Raises `UserError` for another suffix, and
    where no panel has anything to draw.
    """
    for path in paths:
        if Path(path).suffix not in (".png", ".svg"):
            raise UserError(f"cannot draw {os.fspath(path)!r}: name it .png or .svg")
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.9 * lines), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    drawn = 0
    for number, panel in enumerate(panels):
        ax = figure.add_subplot(lines, columns, number + 1)
        drawn += _draw(ax, panel, curves if panel.curves is None else panel.curves)
    if not drawn:
        wanted = ", ".join(f"{panel.y} over {panel.x}" for panel in panels)
        raise UserError(f"no row has what is to be drawn ({wanted})")
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _draw(ax: Axes, panel: Panel, curves: Sequence[Curve]) -> int:
    """Fills one panel; the number of its points."""
    drawn = 0
    for i, curve in enumerate(curves):
        rows = [row for row in curve.rows if _has(row, panel.x) and _has(row, panel.y)]
        if not rows:
            continue
        xs, ys = ([_scaled(row, key) for row in rows] for key in (panel.x, panel.y))
        colour = _COLOURS[i % len(_COLOURS)]
        ax.plot(
            xs,
            ys,
            color=colour,
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=5,
            markerfacecolor="white" if curve.published else colour,
            linestyle=("--" if curve.published else "-") if curve.joined else "none",
            linewidth=1.3,
            label=curve.name,
        )
        for row, x, y in zip(rows, xs, ys, strict=True):
            ax.annotate(
                curve.label(row),
                (x, y),
                (4, 4),
                textcoords="offset points",
                fontsize=7,
                color=colour,
            )
        drawn += len(rows)
    for name, row in panel.lines.items():
        if _has(row, panel.y):
            ax.axhline(_scaled(row, panel.y), color="0.45", linestyle=":", label=name)
        if _has(row, panel.x):
            ax.axvline(_scaled(row, panel.x), color="0.45", linestyle=":")
    ax.set_xlabel(_label(panel.x))
    ax.set_ylabel(_label(panel.y))
    ax.set_title(panel.title, fontsize=10)
    if panel.log_x:
        ax.set_xscale("log")
    ax.margins(0.12)
    ax.grid(color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if drawn:
        ax.legend(frameon=False, fontsize=8)
    return drawn


def _has(row: Row, key: str) -> bool:
    return isinstance(row.get(key), int | float) and math.isfinite(row[key])


def _scaled(row: Row, key: str) -> float:
    return row[key] * table.column(key).scale


def _label(key: str) -> str:
    column = table.column(key)
    return f"{column.heading} ({column.unit})" if column.unit else column.heading
