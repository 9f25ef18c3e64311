"""A grid of words as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def lines_of(rows: Sequence[Sequence[str]]) -> str:
    """The rows, the first of them headings; the first column to the left, the others right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
