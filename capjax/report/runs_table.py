"""A table over runs: how far each is, what sets its config apart, last and best values."""

from __future__ import annotations

from collections.abc import Sequence

from capjax.report.runs import RunLog, differing

MISSING = "\N{EN DASH}"


def grid(runs: Sequence[RunLog], metrics: Sequence[str]) -> list[list[str]]:
    """Rows of cells, the heading first: a row a run, "last (best @step)" a metric."""
    fields = differing(runs) if len(runs) > 1 else []
    rows = [["run", "step", *fields, *metrics]]
    for run in runs:
        done = f"{run.step}/{run.steps}" if run.steps else str(run.step)
        values = [_value(run.config.get(name, MISSING)) for name in fields]
        rows.append([run.name, done, *values, *(_cell(run, metric) for metric in metrics)])
    return rows


def _cell(run: RunLog, metric: str) -> str:
    last, best = run.last(metric), run.best(metric)
    if last is None or best is None:
        return MISSING
    return f"{last:.4g}" if best[1] == last else f"{last:.4g} ({best[1]:.4g} @{best[0]})"


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
