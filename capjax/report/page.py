"""The guidance trade-off as one HTML page: the table, the plot, and pictures with their captions.

The page stands alone: styles and pictures are inside it, it needs no network and no script, and it
follows the reader's light or dark setting. Captions, keys and settings are data, and are escaped.

H, W: height and width of a picture.
"""

from __future__ import annotations

import base64
import difflib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from capjax.report import table

_SMALL = (
    112  # pixels: below, a picture is enlarged by a whole factor; above, it is embedded as JPEG
)
_SHOWN = 208  # pixels: about the width of a picture on the page

_EXPLANATION = (
    "At each guidance scale γ the captioner writes one caption a picture, favouring, the higher γ "
    "is, words that this picture makes likelier than pictures in general do: what is gained in "
    "specificity (recall, CLIP-S) is to be weighed against agreement with the references (CIDEr)."
)

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --faint: #667085; --line: #dfe3e8;
  --card: #f6f7f9; --mark: #ffe08a; --flag: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #15171a; --faint: #98a2b3;
  --line: #33383f; --card: #1e2125; --mark: #6b4e00; --flag: #ff9b8f; } }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 78rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 .5rem; font-size: 1.7rem; } h2 { margin: 2.5rem 0 .75rem; font-size: 1.2rem; }
p { max-width: 48rem; margin: .5rem 0; } .faint { color: var(--faint); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
thead th { border-bottom: 2px solid var(--faint); font-size: .875rem; }
td.best { font-weight: 700; }
.plot { max-width: 100%; border-radius: .5rem; background: #fff; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); }
article { padding: 1rem; border-radius: .6rem; background: var(--card); overflow-wrap: anywhere; }
article img { display: block; margin: 0 auto .6rem; max-width: 100%; border-radius: .3rem; }
.crisp { image-rendering: pixelated; }
article h3 { margin: 0 0 .4rem; font: .8rem ui-monospace, "DejaVu Sans Mono", monospace;
  color: var(--faint); }
article ul { margin: 0 0 .6rem; padding-left: 1.1rem; color: var(--faint); font-size: .875rem; }
article table { width: 100%; } article tr:first-child > * { border-top: 1px solid var(--line); }
article th { width: 3.6rem; padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top;
  font-weight: 500; color: var(--faint); }
article td { padding: .3rem 0; text-align: left; white-space: normal; }
mark { background: var(--mark); color: inherit; border-radius: .2rem; padding: 0 .15rem; }
.flag { color: var(--flag); font-size: .8rem; white-space: nowrap; }
details { margin-top: 1.5rem; } summary { cursor: pointer; }
pre { overflow-x: auto; padding: .8rem; border-radius: .4rem; background: var(--card);
  font-size: .8rem; }
"""


def write(
    path: str | os.PathLike,
    results: Mapping[str, Any],
    examples: Sequence[Mapping[str, Any]],
    plot_png: str | os.PathLike,
) -> None:
    """Writes the page to `path`.

    results: {"title", "rows" as `table` takes them, "settings": {..}, "notes": [str]}.
    examples: each {"key", "image": uint8 [H,W,3], "references": [str], "captions":
      [{"guidance_scale", "caption", "truncated"}]}.
    plot_png: the file that `pareto.plot` wrote.
    """
    title = escape(results["title"])
    plot = base64.b64encode(Path(plot_png).read_bytes()).decode("ascii")
    notes = "".join(f'<p class="faint">{escape(note)}</p>' for note in results.get("notes", ()))
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{title}</h1><p>{_EXPLANATION}</p>",
        _table(results["rows"]),
        notes,
        "<h2>The trade-off</h2>",
        f'<img class="plot" alt="{_plot_in_words(results["rows"])}" '
        f'src="data:image/png;base64,{plot}">',
    ]
    if examples:
        parts += [
            "<h2>Pictures and their captions</h2>",
            '<p class="faint">References in grey. <mark>Marked</mark>: words that differ from the '
            "caption at γ = 1 (or at the lowest γ, where 1 was not run).</p>",
            '<div class="grid">',
            *(_example(example) for example in examples),
            "</div>",
        ]
    if results.get("settings"):
        settings = json.dumps(results["settings"], indent=2, ensure_ascii=False, default=str)
        parts.append(f"<details><summary>Settings</summary><pre>{escape(settings)}</pre></details>")
    parts.append("</body></html>\n")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8", errors="backslashreplace")


def differing(words: Sequence[str], base: Sequence[str]) -> list[bool]:
    """For each of `words`, whether it is absent from its place in `base` (longest common parts)."""
    new = [True] * len(words)
    for block in difflib.SequenceMatcher(None, base, words, autojunk=False).get_matching_blocks():
        new[block.b : block.b + block.size] = [False] * block.size
    return new


def _table(rows: table.Rows) -> str:
    columns = table.select(rows, None)
    best = {column.key: table.best(rows, column) for column in columns}
    head = "".join(f"<th>{escape(column.heading)}</th>" for column in columns)
    body = ""
    for row in table.ordered(rows):
        body += "<tr>"
        for column in columns:
            cell = column.cell(row)
            mark = ' class="best"' if cell == best[column.key] else ""
            body += f"<td{mark}>{escape(cell)}</td>"
        body += "</tr>"
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        f'<p class="faint">{escape(table.note(columns))} Bold: the best of a column.</p>'
    )


def _plot_in_words(rows: table.Rows) -> str:
    scales = ", ".join(f"{row['guidance_scale']:g}" for row in table.ordered(rows))
    return f"Agreement against specificity at guidance scales {scales}; the table has the numbers"


def _example(example: Mapping[str, Any]) -> str:
    captions = sorted(example["captions"], key=lambda caption: caption["guidance_scale"])
    base = next(
        (c for c in captions if c["guidance_scale"] == 1), captions[0] if captions else None
    )
    lines = []
    for caption in captions:
        words = caption["caption"].split()
        new = differing(words, base["caption"].split())
        shown = _marked(zip(words, new, strict=True)) or '<span class="faint">(empty)</span>'
        flag = ' <span class="flag">truncated</span>' if caption.get("truncated") else ""
        lines.append(f"<tr><th>γ {caption['guidance_scale']:g}</th><td>{shown}{flag}</td></tr>")
    references = "".join(f"<li>{escape(text)}</li>" for text in example["references"])
    return (
        f"<article>{_picture(example['image'], str(example['key']))}"
        f"<h3>{escape(str(example['key']))}</h3><ul>{references}</ul>"
        f"<table>{''.join(lines)}</table></article>"
    )


def _marked(words: Iterable[tuple[str, bool]]) -> str:
    """The words in one line, with neighbouring new ones under one mark."""
    runs: list[tuple[bool, list[str]]] = []
    for word, new in words:
        if not runs or runs[-1][0] != new:
            runs.append((new, []))
        runs[-1][1].append(escape(word))
    return " ".join(f"<mark>{' '.join(run)}</mark>" if new else " ".join(run) for new, run in runs)


def _picture(image: np.ndarray, name: str) -> str:
    """uint8 [H,W,3] as an <img>: small ones exactly and enlarged, large ones reduced as JPEG."""
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    if max(picture.size) < _SMALL:
        factor = max(1, _SHOWN // max(picture.size))
        width, height = picture.width * factor, picture.height * factor
        style = ' class="crisp"'
        kind = "png"
        picture.save(buffer, "PNG")
    else:
        picture.thumbnail((2 * _SHOWN, 2 * _SHOWN))  # twice: sharp on dense screens
        shrink = min(1.0, 1.5 * _SHOWN / max(picture.size))
        width, height = round(picture.width * shrink), round(picture.height * shrink)
        style = ""
        kind = "jpeg"
        picture.save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img{style} width="{width}" height="{height}" alt="{escape(name)}" '
        f'src="data:image/{kind};base64,{data}">'
    )
