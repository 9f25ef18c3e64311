"""Curves of training runs as one picture: a panel a metric, a line a run, over the steps."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from capjax.report.runs import RunLog

# Okabe and Ito (2008): told apart in every common colour blindness; from the ninth run on, the
# style of the line differs too.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999",
)  # fmt: skip
_STYLES = ("-", "--", ":", "-.")
_COLUMNS = 3
_MARKED = 30  # points: a curve with fewer shows each


def plot(runs: Sequence[RunLog], metrics: Sequence[str], path: str | os.PathLike) -> None:
    """Writes a PNG."""
    columns = min(_COLUMNS, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, metric in zip(panels, metrics, strict=False):
        for number, run in enumerate(runs):
            curve = run.curves.get(metric)
            if curve:
                steps, values = zip(*curve, strict=True)
                panel.plot(
                    steps,
                    values,
                    color=_COLOURS[number % len(_COLOURS)],
                    linestyle=_STYLES[number // len(_COLOURS) % len(_STYLES)],
                    marker="." if len(curve) < _MARKED else None,
                    linewidth=1.3,
                    label=run.name,
                )
        panel.set_title(metric, fontsize=10)
        panel.set_xlabel("step", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(color="0.9", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    if len(runs) > 1:
        lines = {line.get_label(): line for panel in panels for line in panel.get_lines()}
        figure.legend(
            lines.values(),
            lines.keys(),
            loc="outside lower center",
            ncols=4,
            fontsize=8,
            frameon=False,
        )
    figure.savefig(path)
