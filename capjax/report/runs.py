"""Training runs as data: their curves, last and best values, and what sets them apart.

Only `config.json` and `metrics.jsonl` are read, so a run that is still going can be looked at, and
one whose checkpoints are gone.

Raises `UserError` for a directory that is no run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capjax import config as config_lib
from capjax.errors import UserError
from capjax.logs import read_metrics
from capjax.runs import CONFIG, METRICS

Curve = list[tuple[int, float]]  # (step, value), by step

# Of what is lower the better; everything else that is measured is better when higher.
_LOWER = re.compile(
    r"loss|perplexity|error|_seconds|bytes|median_rank|mean_rank|bad_records|skipped|chair|nll"
)


@dataclass(frozen=True)
class RunLog:
    """What one run has logged."""

    name: str
    directory: Path
    config: dict[str, Any]  # flat: "optimizer.learning_rate" -> 0.001
    steps: int  # that it is to have; 0 if the config does not say
    curves: dict[str, Curve]

    @property
    def step(self) -> int:
        """The last that has logged."""
        return max((curve[-1][0] for curve in self.curves.values()), default=0)

    def last(self, metric: str) -> float | None:
        """The latest value."""
        curve = self.curves.get(metric)
        return curve[-1][1] if curve else None

    def best(self, metric: str) -> tuple[int, float] | None:
        """(step, value) of the best value, the first of equal ones."""
        curve = self.curves.get(metric)
        if not curve:
            return None
        choose = min if lower_is_better(metric) else max
        return choose(curve, key=lambda point: point[1])


def lower_is_better(metric: str) -> bool:
    """By the metric's name."""
    return bool(_LOWER.search(metric))


def read_runs(directories: Sequence[str | os.PathLike]) -> list[RunLog]:
    """The runs, named by what tells their paths apart."""
    paths = [Path(directory) for directory in directories]
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def metrics_of(runs: Sequence[RunLog], pattern: str = "") -> list[str]:
    """Names that some run has logged and the regular expression finds: training first.

    Raises UserError for a pattern that is none or finds nothing.
    """
    names = dict.fromkeys(name for run in runs for name in run.curves)
    try:
        chosen = [name for name in names if re.search(pattern, name)]
    except re.error as error:
        raise UserError(f"--metrics {pattern!r} is not a regular expression: {error}") from error
    if not chosen:
        there = ", ".join(names) or "none: the runs have logged nothing yet"
        raise UserError(f"no metric is found by {pattern!r}; there are {there}")
    return sorted(chosen, key=lambda name: (name.startswith("evals/"), name != "loss", name))


def differing(runs: Sequence[RunLog]) -> list[str]:
    """The fields of the configs in which not all runs agree."""
    fields = sorted({name for run in runs for name in run.config})
    return [
        name
        for name in fields
        if len({json.dumps(run.config.get(name, "absent")) for run in runs}) > 1
    ]


def _read(path: Path, name: str) -> RunLog:
    if not (path / CONFIG).is_file():
        raise UserError(
            f"{str(path)!r} is not a run directory: it holds no {CONFIG}; "
            "give the --workdir of a training run"
        )
    config = config_lib.flatten(
        json.loads(config_lib.to_json(config_lib.from_json((path / CONFIG).read_text())))
    )
    curves: dict[str, dict[int, float]] = {}
    for line in read_metrics(path / METRICS):
        for metric, value in line.items():
            if metric != "step" and isinstance(value, (int, float)):
                curves.setdefault(metric, {})[line["step"]] = float(value)
    ordered = {metric: sorted(points.items()) for metric, points in curves.items()}
    return RunLog(name, path, config, int(config.get("steps", 0)), ordered)


def _names(paths: Sequence[Path]) -> list[str]:
    """Each path without what all have in common at its beginning."""
    parts = [path.resolve().parts for path in paths]
    if len(paths) == 1:
        return [parts[0][-1]]
    common = os.path.commonpath([path.resolve() for path in paths])
    shared = len(Path(common).parts)
    return ["/".join(own[shared:]) or own[-1] for own in parts]
