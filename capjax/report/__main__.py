"""Training runs, drawn and compared: `python -m capjax.report RUN... [--out DIR]`.

Prints a table (a row a run: its step, where its config differs, last and best values) and writes
`curves.png` and `report.html` to --out. A RUN is the --workdir of a training run, finished or not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from capjax.errors import UserError, exit_cleanly
from capjax.report import run_curves, runs_page, runs_table
from capjax.report.grid import lines_of
from capjax.report.runs import metrics_of, read_runs

# In the table without --metrics: what was optimised and what was evaluated.
_TABLE = r"^loss$|^evals/"
_MOST = 12  # columns of metrics in the table, unless asked for


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m capjax.report",
        description="Draw the curves of training runs and compare them.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the --workdir of a training run")
    parser.add_argument(
        "--out", default="", metavar="DIR", help="for curves.png and report.html; else none"
    )
    parser.add_argument(
        "--metrics", default="", metavar="REGEX", help="which to show, e.g. 'loss|recall_at_1'"
    )
    args = parser.parse_args(argv)
    runs = read_runs(args.runs)
    drawn = metrics_of(runs, args.metrics)
    shown = drawn if args.metrics else metrics_of(runs, _TABLE)[:_MOST]
    rows = runs_table.grid(runs, shown)
    print(lines_of(rows))
    if not args.out:
        return
    out = Path(args.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        run_curves.plot(runs, drawn, out / "curves.png")
    except OSError as error:
        raise UserError(f"cannot write to {args.out!r}: {error.strerror}") from error
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    runs_page.write(out / "report.html", title, rows, out / "curves.png")
    print(f"{out / 'curves.png'}\n{out / 'report.html'}")


if __name__ == "__main__":
    exit_cleanly(main)
