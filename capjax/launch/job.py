"""What is started, whatever starts it: the training command, or a sweep's, and its name.

Raises `UserError` for a command that neither `capjax.train` nor `capjax.sweep` would take.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capjax import sweep
from capjax.errors import UserError


@dataclass(frozen=True)
class Job:
    """One run, or the points of a sweep, with the arguments of `capjax.train`."""

    arguments: tuple[str, ...]
    points: int = 0  # of a sweep; 0: one run
    setup: str = ""  # shell commands before it, e.g. "source .venv/bin/activate"
    name: str = ""

    def command(self, *more: str) -> str:
        """The shell command of one process; `more` is appended as it is."""
        module = "capjax.sweep" if self.points else "capjax.train"
        words = shlex.join(["python", "-m", module, *self.arguments])
        return " ".join([words, *more])

    def with_setup(self, command: str) -> str:
        """`command` after the setup, as one line of shell."""
        return f"{self.setup} && {command}" if self.setup else command


def make_job(arguments: Sequence[str], is_sweep: bool, setup: str, name: str) -> Job:
    """Checks that a config and a workdir are named; reads how many points a sweep has."""
    arguments = [word for word in arguments if word != "--"]
    given = {flag: _value(arguments, flag) for flag in ("--config", "--workdir")}
    for flag, value in given.items():
        if not value:
            raise UserError(
                f"the command lacks {flag}: write the arguments of capjax.train behind --, as in "
                "-- --config configs/guiding/scenes.py --workdir DIR"
            )
    count = 0
    if is_sweep:
        more = [word for word in arguments if word.startswith("--config.")]
        count = len(sweep.points(given["--config"], Path(given["--workdir"]), more))
    stem = Path(given["--config"].partition(":")[0]).stem
    name = name or re.sub(r"[^a-z0-9]+", "-", f"capjax-{stem}".lower()).strip("-")
    return Job(tuple(arguments), count, setup, name)


def _value(arguments: Sequence[str], flag: str) -> str:
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == flag:
            return after
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return ""
