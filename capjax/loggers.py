"""Where metrics go besides `metrics.jsonl`: TensorBoard and Weights & Biases, by config.

    config.loggers.tensorboard = True          DIR/tensorboard, by tensorboardX (no TensorFlow)
    config.loggers.wandb_project = "captions"  W&B; offline with WANDB_MODE=offline, in DIR/wandb

A run that goes on continues its curves: TensorBoard drops what lay beyond the checkpoint; W&B,
whose steps never go back, leaves out what it has already.

Raises `UserError` where the package is not installed.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

from capjax.errors import UserError


class Logger(Protocol):
    """What takes the lines of `metrics.jsonl` too."""

    def write(self, step: int, values: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def make_loggers(config: ConfigDict, workdir: Path, start: int) -> list[Logger]:
    """Those that the config asks for, of a run that begins, or goes on, at step `start`."""
    chosen: list[Logger] = []
    if config.loggers.tensorboard:
        chosen.append(TensorBoard(workdir / "tensorboard", start))
    if config.loggers.wandb_project:
        chosen.append(WandB(config.loggers.wandb_project, config, workdir))
    return chosen


class TensorBoard:
    """Event files in `directory`."""

    def __init__(self, directory: Path, start: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard", "tensorboardX", "tensorboard") from error
        self._writer = SummaryWriter(str(directory), purge_step=start + 1 if start else None)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        for name, value in _numbers(values).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of W&B that belongs to the workdir: `wandb_id.txt` there names it."""

    def __init__(self, project: str, config: ConfigDict, workdir: Path):
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb_project", "wandb", "wandb") from error
        id_file = workdir / "wandb_id.txt"
        if not id_file.exists():
            id_file.write_text(uuid.uuid4().hex)
        self._run = wandb.init(
            project=project,
            name=workdir.resolve().name,
            id=id_file.read_text().strip(),
            resume="allow",
            dir=str(workdir),
            config=config.to_dict(),
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        self._run.log(_numbers(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The scalars that a curve can show."""
    found = {}
    for name, value in values.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, (int, float)) and math.isfinite(value):
            found[name] = float(value)
    return found


def _missing(field: str, package: str, extra: str) -> UserError:
    return UserError(
        f"config.loggers.{field} needs {package}: pip install 'capjax[{extra}]', or unset it"
    )
