"""Runs compared on one HTML page that stands alone: the table, and the curves as a picture.

Names and values are data, and are escaped.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from capjax.report.page import STYLE
from capjax.whole_file import whole_file


def write(
    path: str | os.PathLike, title: str, rows: Sequence[Sequence[str]], png: str | os.PathLike
) -> None:
    """rows: as `runs_table.grid` gives them; png: the file that `run_curves.plot` wrote."""
    head, *body = ([escape(cell) for cell in row] for row in rows)
    plot = base64.b64encode(Path(png).read_bytes()).decode("ascii")
    cells = "".join(
        f"<tr><th>{row[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>"
        for row in body
    )
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE} tbody th {{ text-align: left; }}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        '<p class="faint">The last value of each metric; in brackets the best one and its step, '
        "where it is another.</p>",
        '<div class="wide"><table><thead><tr>'
        + "".join(f"<th>{cell}</th>" for cell in head)
        + f"</tr></thead><tbody>{cells}</tbody></table></div>",
        "<h2>Curves</h2>",
        f'<img class="plot" alt="A panel a metric, a line a run; the table has the numbers" '
        f'src="data:image/png;base64,{plot}">',
        "</body></html>\n",
    ]
    with whole_file(path) as file:
        file.write("\n".join(parts))
