"""The model card of an exported run: a README.md with Hugging Face's front matter.

It says only what the run's own files say: the published checkpoint it began with, the data and
settings of the training here, the latest value of each metric, and the licence, which is the
original's unless the user names another one.
"""

from __future__ import annotations

import re
from pathlib import Path

from capjax import config as config_lib
from capjax import runs
from capjax.logs import read_metrics
from capjax.weights.importing import ORIGIN
from capjax.weights.plan import Plan, Source, read_json

UNKNOWN = "unknown"


def card(run: runs.Run, plan: Plan, source: Source, licence: str = "") -> str:
    """Markdown; `source` is the form that was exported to, with the original's small files."""
    licence = licence or _licence_of(source.folder)
    lines = [
        "---",
        f"license: {licence}",
        "library_name: capjax",
        "---",
        "",
        f"# {run.directory.resolve().name}",
        "",
        f"A model of the family {plan.family}, exported from capjax (`{run.config.model.name}`) at "
        f"step {run.step}.",
        "",
        "## Origin",
        "",
        *_origin(read_json(source.folder / ORIGIN)),
        "",
        "## Training",
        "",
        *_training(run),
        "",
        "## Metrics",
        "",
        *_metrics(run.directory / runs.METRICS),
        "",
        "## Licence",
        "",
        f"{licence}. That of the original checkpoint and of the training data may bind too.",
        "",
    ]
    return "\n".join(lines)


def _licence_of(folder: Path) -> str:
    """That which the original's card names."""
    readme = folder / "README.md"
    if not readme.is_file():
        return UNKNOWN
    found = re.search(r"\A---\n.*?^license:\s*(\S+).*?^---", readme.read_text(), re.S | re.M)
    return found[1] if found else UNKNOWN


def _origin(origin: dict) -> list[str]:
    if not origin.get("files"):
        return ["No published checkpoint is recorded."]
    return [
        f"- {name}: {told['bytes']:,} bytes, SHA-256 `{told['sha256']}`"
        for name, told in origin["files"].items()
    ]


def _training(run: runs.Run) -> list[str]:
    if run.step == 0:
        return ["None: the parameters are the original's."]
    config = run.config
    data = config.data.train.to_dict()
    return [
        f"{run.step} steps of {config.batch_size} examples; task `{config.task.name}`, optimiser "
        f"{config.optimizer.name} at a learning rate of {config.optimizer.learning_rate:g}; data "
        f"`{data.get('name', '')}`. The whole config:",
        "",
        "```json",
        config_lib.to_json(config),
        "```",
    ]


def _metrics(path: Path) -> list[str]:
    if not path.is_file():
        return ["None were measured."]
    latest: dict[str, tuple[int, float]] = {}
    for row in read_metrics(path):
        step = row.get("step", 0)
        latest |= {k: (step, v) for k, v in row.items() if isinstance(v, int | float)}
    latest.pop("step", None)
    return [
        "| metric | value | step |",
        "| --- | --- | --- |",
        *(f"| {name} | {value:.6g} | {step} |" for name, (step, value) in sorted(latest.items())),
    ]
