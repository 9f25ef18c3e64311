"""The table and the figure of `beyond`: every way of decoding beside the greedy curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capjax.report import curves
from capjax.report.curves import Curve, Panel
from capjax.reproduce import Finding
from capjax.whole_file import whole_file
from experiments.guiding import layouts

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
COLUMNS = (
    *("cider", "recall_at_1", "true", "own_cosine", "words", "distinct_captions"),
    "excess in R@1",
)
LABELLED = ("γ=1", "γ=1.1", "γ=1.2", "γ=1.3", "γ=1.4", "γ=2", "γ=4")  # the others stand too close
DECODING = ("beams", "best of n", "schedule", "stopping rule")
TRAINING = ("learned null", "pixel masking", "another seed", "distillation")
JOINED = ("learned null", "pixel masking", "another seed")  # curves over the scale


def markdown(rows: Rows, findings: Sequence[Finding]) -> str:
    """The verdicts, then every setting."""
    lines = [
        "# Beyond the paper: each against greedy guidance at equal CIDEr\n",
        "Generated scenes (`configs/guiding/beyond.py`). R@1 is the oracle's: the chance to pick "
        "the picture among all, knowing what the caption says. The excess is the R@1 above what "
        "greedy guidance reaches at that CIDEr by mixing its scales, in percentage points, with a "
        "paired bootstrap interval of 99% (`capjax/metrics/frontier.py`). The setting of each "
        "move was chosen on other pictures. True: the share of captions that are true of their "
        "picture.\n",
        "| move | chosen setting | CIDEr | R@1 | excess in R@1 | verdict |",
        "| --- | --- | --: | --: | --: | --- |",
    ]
    for finding in findings:
        m = finding.measured
        if "verdict" in m:
            lines.append(
                f"| {finding.name.replace('_', ' ')} | {m['setting']} | {100 * m['cider']:.1f} | "
                f"{100 * m['recall_at_1']:.1f} | {_interval(m)} | {m['verdict']} |"
            )
    shown = {
        move: [{**row, "excess in R@1": _interval(row)} for row in group]
        for move, group in rows.items()
    }
    return "\n".join(lines) + "\n\n## Every setting\n\n" + layouts.grid(shown, COLUMNS)


def figure(rows: Rows, path: Path) -> None:
    """R@1 over CIDEr: on the left what decoding does, on the right what training does."""
    greedy = Curve(
        "greedy", rows["greedy"], label=lambda row: row["name"] if row["name"] in LABELLED else ""
    )
    panels = [
        Panel(
            "cider",
            "recall_at_1",
            title,
            curves=[greedy, *(Curve(m, rows[m], joined=m in JOINED) for m in names if m in rows)],
        )
        for title, names in (("ways to decode", DECODING), ("ways to train", TRAINING))
    ]
    curves.draw([path], panels)


def write(results: Path, rows: Rows, findings: Sequence[Finding]) -> None:
    """Beside the results, .md and .png of the same name."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(results.with_suffix(".md"), "w") as file:
        file.write(markdown(rows, findings))
    figure(rows, results.with_suffix(".png"))


def _interval(row: Mapping[str, Any]) -> str:
    # Adding zero turns what is rounded to -0.00 into +0.00.
    value, low, high = (round(100 * row[name], 2) + 0.0 for name in ("excess", "low", "high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
