"""The guidance trade-off as a table: one row a guidance scale, columns as papers print them.

A row is a dict {"guidance_scale": 1.5, "cider": 0.81, "recall_at_1": 0.42, ...} of fractions. In
print, BLEU, METEOR, ROUGE-L and CIDEr are multiplied by 100, recall is in per cent and CLIPScore
stays as it is (guiding, arXiv 2307.16686, Table 1); a note beneath the table says so.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from capjax.errors import UserError

Row = Mapping[str, Any]
Rows = Sequence[Row]
MISSING = "\N{EN DASH}"


@dataclasses.dataclass(frozen=True)
class Column:
    """How the values under `key` are printed: times `scale`, with `decimals` (None: as needed)."""

    key: str
    heading: str
    scale: float = 1.0
    decimals: int | None = None
    unit: str = ""  # for an axis: "×100", "%"
    higher_is_better: bool = False

    def cell(self, row: Row) -> str:
        """The printed value; an en dash where the row has none."""
        value = row.get(self.key)
        if value is None:
            return MISSING
        if isinstance(value, str):
            return value
        return f"{value:g}" if self.decimals is None else f"{value * self.scale:.{self.decimals}f}"


def _times_100(key: str, heading: str) -> Column:
    return Column(key, heading, 100, 1, "×100", higher_is_better=True)


def _percent(key: str, heading: str) -> Column:
    return Column(key, heading, 100, 1, "%", higher_is_better=True)


def _as_is(key: str, heading: str) -> Column:
    return Column(key, heading, 1, 3, higher_is_better=True)


_SPACE_COLUMNS = (  # measured in a space of pictures and texts
    _as_is("ref_only_clipscore", "RefOnlyCLIP-S"),
    _as_is("clipscore", "CLIP-S"),
    _percent("recall_at_1", "R@1"),
    _percent("recall_at_5", "R@5"),
    _percent("recall_at_10", "R@10"),
    _as_is("ref_clipscore", "RefCLIP-S"),
)
_COLUMNS = {
    column.key: column
    for column in (
        Column("guidance_scale", "γ"),
        *(_times_100(f"bleu_{n}", f"BLEU-{n}") for n in (1, 2, 3, 4)),
        _times_100("meteor", "METEOR"),
        _times_100("rouge_l", "ROUGE-L"),
        _times_100("cider", "CIDEr"),
        _times_100("cider_plain", "CIDEr plain"),
        _times_100("spice", "SPICE"),
        *_SPACE_COLUMNS,
        *(
            dataclasses.replace(column, key=f"own_{column.key}", heading=f"own {column.heading}")
            for column in _SPACE_COLUMNS
        ),
        Column("truncated", "truncated", 100, 1, "%"),
        *(_as_is(f"distinct_{n}", f"distinct-{n}") for n in (1, 2)),
        *(_as_is(f"div_{n}", f"div-{n}") for n in (1, 2)),
        Column("vocabulary", "vocabulary", 1, 0),
        _percent("unique_captions", "unique"),
        _percent("novelty", "novel"),
        Column("chair_i", "CHAIR-i", 100, 1, "%"),
        Column("chair_s", "CHAIR-s", 100, 1, "%"),
        _percent("object_recall", "object recall"),
        *(Column(name, name, 1, 1) for name in ("words", "words_sd")),
        *(Column(name, name, 1, 1) for name in ("characters", "characters_sd")),
        *(Column(f"self_bleu_{n}", f"self-BLEU-{n}", 100, 1, "×100") for n in (1, 2, 3, 4)),
        *(Column(f"mbleu_{n}", f"mBLEU-{n}", 100, 1, "×100") for n in (1, 2, 3, 4)),
    )
}
# Shown where nothing is asked for: the columns of the paper's Table 1, in its order, and whether
# captions ran into the length limit.
_AGREEMENT = ("guidance_scale", "bleu_4", "meteor", "rouge_l", "cider")


def column(key: str) -> Column:
    """How `key` is printed; a key that is not known here keeps its name and three digits."""
    return _COLUMNS.get(key, Column(key, key, 1, 3))


def select(rows: Rows, columns: Sequence[str] | None) -> list[Column]:
    """The columns asked for, or by default those of the paper's table that any row has.

    By default the captioner's own space (`own_`) stands in where no separate encoder scored.

    Raises `UserError` for an unknown column that no row has either.
    """
    present = {key for row in rows for key in row}
    if columns is None:
        space = [column.key for column in _SPACE_COLUMNS]
        if not present.intersection(space):
            space = [f"own_{key}" for key in space]
        columns = [key for key in (*_AGREEMENT, *space, "truncated") if key in present]
    for key in columns:
        if key not in present and key not in _COLUMNS:
            raise UserError(
                f"no column {key!r} in the results; known: {', '.join(sorted(present))}"
            )
    return [column(key) for key in columns]


def ordered(rows: Rows) -> list[Row]:
    """The rows by rising guidance scale; raises `UserError` where one, or every one, is missing."""
    if not rows:
        raise UserError("the results hold no rows; evaluate at least one guidance scale")
    for i, row in enumerate(rows):
        if not isinstance(row.get("guidance_scale"), int | float):
            raise UserError(f"row {i} of the results has no number as its guidance_scale")
    return sorted(rows, key=lambda row: row["guidance_scale"])


def markdown(rows: Rows, columns: Sequence[str] | None = None) -> str:
    """A Markdown table and, beneath it, the note on units."""
    chosen = select(rows, columns)
    grid = [[column.heading for column in chosen], ["--:"] * len(chosen)]
    grid += [[column.cell(row) for column in chosen] for row in ordered(rows)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in grid]
    return "\n".join(lines) + f"\n\n{note(chosen)}\n"


def text(rows: Rows, columns: Sequence[str] | None = None) -> str:
    """The same, aligned for a terminal."""
    chosen = select(rows, columns)
    grid = [[column.heading for column in chosen]]
    grid += [[column.cell(row) for column in chosen] for row in ordered(rows)]
    widths = [max(map(len, cells)) for cells in zip(*grid, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in grid
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines) + f"\n{textwrap.fill(note(chosen), 100)}\n"


def note(columns: Sequence[Column]) -> str:
    """The units of `columns`, as one line."""
    times_100 = [column.heading for column in columns if column.unit == "×100"]
    clip = any("CLIP-S" in column.heading for column in columns)
    parts = ["γ: guidance scale"] if any(c.key == "guidance_scale" for c in columns) else []
    parts += [f"{', '.join(times_100)}: ×100"] if times_100 else []
    if any("recall_at" in column.key for column in columns):
        parts.append("R@k: caption → picture recall in %")
    parts += ["CLIP-S: as is"] if clip else []
    if any(column.key.startswith("own_") for column in columns):
        parts.append("own: in the captioner's own embedding space")
    if any(column.key == "truncated" for column in columns):
        parts.append("truncated: % of captions cut at the length limit")
    return "; ".join(parts) + "."


def best(rows: Rows, column: Column) -> str | None:
    """The printed form of the column's best value; None where there is nothing to prefer."""
    values = [row[column.key] for row in rows if _is_number(row.get(column.key))]
    if not column.higher_is_better or len(values) < 2:
        return None
    return column.cell({column.key: max(values)})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
