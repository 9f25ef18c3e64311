"""What a pipeline made of its records: counts, lengths, words and scores before and after, a page.

before, after: columns of text; a column of texts counts each. CLIPScores are columns of numbers
whose name begins with clipscore. Where a column's name ends in url, records that share a URL are
counted. The page stands alone: no network, no script; what was crawled is escaped.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from capjax.curate.align_filter import unigrams
from capjax.curate.cache import Cache
from capjax.curate.finished import Finished
from capjax.curate.stages.texts import draw
from capjax.errors import UserError
from capjax.report.page import STYLE

_LENGTHS = (0, 4, 8, 12, 16, 24, 32, 48, 64)  # words: the edges of the histogram
_BINS = np.linspace(0, 1.25, 11)  # of CLIPScores, which are 2.5 times a cosine


@dataclasses.dataclass
class Texts:
    """Of one column."""

    name: str
    texts: int = 0
    words: Counter = dataclasses.field(default_factory=Counter)
    lengths: list[int] = dataclasses.field(default_factory=list)

    def add(self, value: Any) -> None:
        for text in value if isinstance(value, list) else [value]:
            if text:
                found = unigrams(text)
                self.texts += 1
                self.words.update(found)
                self.lengths.append(len(found))

    def row(self) -> list[str]:
        lengths = np.array(self.lengths or [0])
        median, high = np.percentile(lengths, [50, 95])
        once = sum(count == 1 for count in self.words.values())
        return [
            self.name,
            f"{self.texts:,}",
            f"{lengths.mean():.1f}",
            f"{median:.0f}",
            f"{high:.0f}",
            f"{len(self.words):,}",
            f"{once:,}",
        ]

    def histogram(self) -> list[str]:
        counts, _ = np.histogram(self.lengths, [*_LENGTHS, np.inf])
        return [f"{100 * c / max(self.texts, 1):.0f}%" for c in counts]


@dataclasses.dataclass
class Report:
    """The findings, as tables: title -> rows of cells, the first of which is the head."""

    directory: str
    tables: dict[str, list[list[str]]]
    samples: list[dict[str, Any]]

    def text(self) -> str:
        """For a terminal."""
        parts = [f"{self.directory}"]
        for title, rows in self.tables.items():
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines = [
                "  ".join(
                    cell.ljust(width) if i == 0 else cell.rjust(width)
                    for i, (cell, width) in enumerate(zip(row, widths, strict=True))
                )
                for row in rows
            ]
            parts.append("\n".join([title, *("  " + line.rstrip() for line in lines)]))
        return "\n\n".join(parts)


def report(
    directory: str | os.PathLike,
    before: str | None = None,
    after: str | None = None,
    samples: int = 24,
) -> Report:
    """Reads the whole output once. UserError for a column that is not there."""
    output = Finished(directory)
    texts = [n for n, kind in output.columns.items() if kind in ("str", "list[str]") and n != "key"]
    for name in (before, after):
        if name is not None and name not in texts:
            raise UserError(f"there is no column of text {name!r}: there are {', '.join(texts)}")
    chosen = [name for name in (before, after) if name] or [
        name for name in texts if not name.endswith(("_status", "_model", "_source"))
    ]
    labels = [name for name in texts if name.endswith(("_status", "_model", "_source"))]
    scores: dict[str, list[float]] = {n: [] for n in output.columns if n.startswith("clipscore")}
    columns = [Texts(name) for name in chosen]
    found = {name: Counter() for name in labels}
    seen = {name: set() for name in output.columns if name == "key" or name.endswith("url")}
    rows, kept = 0, []
    for row in output.rows():
        rows += 1
        for name, values in seen.items():
            values.add(hash(row[name]))
        for column in columns:
            column.add(row[column.name])
        for name in labels:
            found[name][str(row[name])] += 1
        for name, values in scores.items():
            own = row[name]
            values += own if isinstance(own, list) else [] if own is None else [own]
        place = draw("sample", row["key"]) if "key" in row else rows
        kept.append((place, rows, row))
        if len(kept) > 4 * max(samples, 1):
            kept = sorted(kept, key=lambda one: one[:2])[:samples]
    tables = {"records": _records(output, rows), "stages": _stages(output)}
    records = len(seen.pop("key")) if "key" in seen else rows  # a stage may make several of one
    again = {name: records - len(v) for name, v in seen.items() if len(v) < records}
    if again:
        told = [[name, f"{count:,}"] for name, count in again.items()]
        tables["met more than once"] = [["column", "records too many"], *told]
    tables |= _text_tables(columns)
    if any(scores.values()):
        tables["CLIPScore (share of texts)"] = _score_table(scores)
    for name, counts in found.items():
        total = [[value or "(none)", f"{n:,}"] for value, n in counts.most_common(12)]
        tables[name] = [["value", "records"], *total]
    tables |= _paid(output)
    bad = output.bad()
    if bad:
        told = [[stage, reason[:70], f"{n:,}"] for (stage, reason), n in bad.most_common(12)]
        tables["left out as bad"] = [["stage", "reason", "records"], *told]
    chosen_rows = [row for _, _, row in sorted(kept, key=lambda one: one[:2])[:samples]]
    return Report(str(directory), tables, chosen_rows)


def write_page(found: Report, path: str | os.PathLike) -> None:
    """The findings as one HTML file."""
    title = escape(f"Curation: {found.directory}")
    body = [f"<h1>{title}</h1>"]
    for name, rows in found.tables.items():
        body += [f"<h2>{escape(name)}</h2>", _html_table(rows)]
    body.append('<h2>Some records</h2><div class="grid">')
    for row in found.samples:
        cells = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(_shown(value))}</td></tr>"
            for name, value in row.items()
            if name != "key"
        )
        body.append(f"<article><h3>{escape(str(row.get('key', '')))}</h3><table>{cells}</table>")
        body.append("</article>")
    text = "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE} article th {{ width: 8rem; }}</style></head><body>",
            *body,
            "</div></body></html>\n",
        ]
    )
    Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")


def _records(output: Finished, rows: int) -> list[list[str]]:
    return [
        ["in the source", "parts finished", "parts", "written"],
        [
            f"{output.settings['records']:,}",
            f"{len(output.parts):,}",
            f"{output.expected_parts:,}",
            f"{rows:,}",
        ],
    ]


def _stages(output: Finished) -> list[list[str]]:
    rows = [["stage", "in", "out", "bad"]]
    for stage, counts in output.counts().items():
        rows.append([stage, *(f"{counts[kind]:,}" for kind in ("in", "out", "bad"))])
    return rows


def _text_tables(columns: Sequence[Texts]) -> dict[str, list[list[str]]]:
    head = ["column", "texts", "words each", "median", "95%", "vocabulary", "words once"]
    edges = [f"{low}-{high - 1}" for low, high in itertools.pairwise(_LENGTHS)]
    lengths = [["column", *edges, f"{_LENGTHS[-1]}-"]]
    return {
        "texts": [head, *(column.row() for column in columns)],
        "lengths in words (share of texts)": lengths
        + [[column.name, *column.histogram()] for column in columns],
    }


def _score_table(scores: Mapping[str, Iterable[float]]) -> list[list[str]]:
    head = ["column", "mean", *(f"{low:.2f}-" for low in _BINS[:-1])]
    rows = [head]
    for name, values in scores.items():
        held = np.array(list(values) or [0.0])
        counts, _ = np.histogram(np.clip(held, 0, _BINS[-1]), _BINS)
        shares = [f"{100 * c / len(held):.0f}%" for c in counts]
        rows.append([name, f"{held.mean():.3f}", *shares])
    return rows


def _paid(output: Finished) -> dict[str, list[list[str]]]:
    place = output.directory / "cache"
    if not any(place.glob("answers*.sqlite")):
        return {}
    cache = Cache(place)
    ledger = cache.ledger()
    cache.close()
    tables = {}
    paid = []
    for stage, models in ledger["paid"].items():
        for model, p in models.items():
            numbers = (f"{n:,}" for n in (p.calls, p.prompt_tokens, p.completion_tokens))
            paid.append([stage, model, *numbers, f"{p.cost:.4f}"])
    if paid:
        head = ["stage", "model", "calls", "prompt tokens", "answer tokens", "cost"]
        tables["paid"] = [head, *paid]
    failures = [
        [stage, kind, f"{count:,}"]
        for stage, kinds in ledger["failures"].items()
        for kind, count in sorted(kinds.items())
    ]
    if failures:
        tables["failed attempts and unusable answers"] = [["stage", "kind", "times"], *failures]
    return tables


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " | ".join(map(str, value[:8])) + (" ..." if len(value) > 8 else "")
    return str(value)
