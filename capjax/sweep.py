"""Sweeps: one run for each point that a config's `get_hyper()` lists, one after the other.

    def get_hyper():                                   # beside get_config, in the same file
        return product(
            each("optimizer.learning_rate", 1e-4, 3e-4, 1e-3),
            each("seed", 0, 1),
        )

    python -m capjax.sweep --config FILE.py --workdir DIR             # DIR/0-learning_rate=0.0001..
    python -m capjax.sweep --config FILE.py --workdir DIR --index 3   # an array job's task
    python -m capjax.sweep --config FILE.py --workdir DIR --table     # what came out so far

A point is a dict of overrides, so a list of dicts written by hand does as well. Each run is a
process of its own. What is finished is not started again: the same command goes on with a sweep
that was interrupted. Points are checked against the config before the first one starts.

Exit codes as of `capjax.train`; 1 if a run failed, after the others have been done.
Raises `UserError` for a config without `get_hyper`, or a point that the config does not take.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capjax import config as config_lib
from capjax.errors import EXIT_INTERRUPTED, UserError, exit_cleanly
from capjax.signals import RESTART
from capjax.whole_file import whole_file

Overrides = dict[str, Any]  # {"optimizer.learning_rate": 1e-3}

_DONE = "sweep_done.json"  # in a finished run's directory: the command that finished it


def each(field: str, *values: Any) -> list[Overrides]:
    """One point for each value of one field."""
    return [{field: value} for value in values]


def product(*axes: list[Overrides]) -> list[Overrides]:
    """Every point of the first with every one of the next, the last changing fastest."""
    return [
        {name: value for point in points for name, value in point.items()}
        for points in itertools.product(*axes)
    ]


def together(*axes: list[Overrides]) -> list[Overrides]:
    """The first points of all as one, the second ones as one, ..."""
    if len({len(axis) for axis in axes}) != 1:
        raise UserError(
            f"together(...) needs axes of one length, not {', '.join(str(len(a)) for a in axes)}"
        )
    return [
        {name: value for point in points for name, value in point.items()}
        for points in zip(*axes, strict=True)
    ]


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    workdir: Path
    command: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether this very command has finished before."""
        path = self.workdir / _DONE
        return path.exists() and json.loads(path.read_text()) == list(self.command)


def points(spec: str, workdir: Path, overrides: Sequence[str] = ()) -> list[Point]:
    """The runs of the config `FILE.py[:ARG]`; `overrides` come before those of each point."""
    path, _, arg = spec.partition(":")
    get_hyper = getattr(config_lib.load_script(Path(path)), "get_hyper", None)
    if get_hyper is None:
        raise UserError(
            f"config file {path!r} does not define get_hyper(): let it return a list of dicts "
            'such as {"optimizer.learning_rate": 1e-3}'
        )
    listed = get_hyper(arg) if inspect.signature(get_hyper).parameters else get_hyper()
    if not listed:
        raise UserError(f"get_hyper() of {path!r} lists no point")
    runs = []
    for index, point in enumerate(listed):
        given = [*overrides, *(f"--config.{name}={value}" for name, value in point.items())]
        config_lib.load(spec, given)
        where = workdir / _name(index, len(listed), point)
        command = [sys.executable, "-m", "capjax.train", "--config", spec]
        runs.append(Point(where, (*command, "--workdir", str(where), *given)))
    return runs


def run(point: Point) -> int:
    """Trains one point, if it is not finished, and returns the exit code."""
    if point.done:
        print(f"{point.workdir} is finished", file=sys.stderr)
        return 0
    print(f"{point.workdir}: {shlex.join(point.command)}", file=sys.stderr, flush=True)
    process = subprocess.Popen(point.command)
    # The run saves and says so; Ctrl-C reaches it by itself, as one of the terminal's.
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue
    finally:
        signal.signal(signal.SIGTERM, before)
    if code == 0:
        with whole_file(point.workdir / _DONE) as file:
            json.dump(list(point.command), file)
    return code


def table(runs: Sequence[Point]) -> str:
    """What the runs that have begun have logged so far."""
    from capjax.report import runs_table
    from capjax.report.grid import lines_of
    from capjax.report.runs import metrics_of, read_runs

    begun = [point.workdir for point in runs if (point.workdir / "metrics.jsonl").exists()]
    if not begun:
        return "no run has begun"
    logs = read_runs(begun)
    return lines_of(runs_table.grid(logs, metrics_of(logs, r"^loss$|^evals/")))


def _name(index: int, count: int, point: Overrides) -> str:
    """A directory's name that sorts by index and says what the point is."""
    digits = len(str(count - 1))
    fields = "-".join(f"{name.rpartition('.')[2]}={value}" for name, value in point.items())
    return re.sub(r"[^\w.=+-]+", "_", f"{index:0{digits}}-{fields}")[:120]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m capjax.sweep",
        description="Run every point of a config's get_hyper(), one after the other. The same "
        "command goes on with a sweep that was interrupted.",
        epilog="Overrides such as --config.steps=2000 hold for all points.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="holds a run a point")
    parser.add_argument("--index", type=int, metavar="I", help="this point alone, from 0")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    args, overrides = parser.parse_known_args(argv)
    runs = points(args.config, Path(args.workdir), overrides)
    if args.index is not None and not 0 <= args.index < len(runs):
        raise UserError(f"--index {args.index}: the sweep has the points 0 to {len(runs) - 1}")
    chosen = runs if args.index is None else [runs[args.index]]
    if args.list:
        for point in chosen:
            print(f"{'done' if point.done else 'to do'}  {shlex.join(point.command)}")
        return 0
    failed = []
    for point in [] if args.table else chosen:
        code = run(point)
        if code in (RESTART, EXIT_INTERRUPTED):
            return code
        if code:
            failed.append((point, code))
    print(table(runs))
    for point, code in failed:
        print(f"{point.workdir} ended with code {code}", file=sys.stderr)
    if len(chosen) == 1 and failed:
        return failed[0][1]
    return 1 if failed else 0


if __name__ == "__main__":
    exit_cleanly(main)
