"""One command for each table and figure of guiding: ours beside the published numbers.

  python -m experiments.guiding.tables table_1 --sweep coco.json --out runs/tables
  python -m experiments.guiding.tables table_1 --captioner runs/coco --out runs/tables \\
      --data data/coco/captions_test.jsonl --judge clip=runs/clip_b32

writes OUT/table_1.md and OUT/table_1.json, figures also as .png and .svg. `--sweep` takes what
`python -m experiments.guiding.sweep` wrote, so that one sweep serves many tables; with
`--captioner` and `--data` the sweep is made here and kept as OUT/NAME.sweep.json, and takes the
options of that command. Several are given as NAME=FILE, NAME=RUN or NAME=DATA:

  table_1    metrics over gamma                        figure_1   R@1 over CIDEr
  table_b1   both variants: bottleneck=.. attention_pooling=..
  table_2    lengths                                   figure_2   a NAME for each fine-tuning
  table_3    web data only: gamma, and --shots         figure_8   CIDEr and R@1 over shots
  table_b2   class names in captions (--classes)       figure_6   gamma against --alpha
  table_b3   the binomial test (--answers, if any)     figure_5   a NAME for each data set
  table_b4   every judge of the sweep
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from capjax.data.classes import class_names
from capjax.data.scenes.vocabulary import SHAPES
from capjax.errors import UserError, exit_cleanly
from capjax.report import curves
from capjax.whole_file import whole_file
from experiments.guiding import binomial, fine_grained, layouts, sweep
from experiments.guiding.layouts import Result


def table_b2(sweeps: layouts.Sweeps, args: argparse.Namespace) -> Result:
    """Mentions of class names, and how many are right, at every setting."""
    found = layouts.single(sweeps)
    labels = found["labels"]
    if None in labels:
        raise UserError(
            f"{labels.count(None)} of {len(labels)} records have no `label`: table_b2 needs them"
        )
    classes = class_names(args.classes) if args.classes else SHAPES
    rows = [
        layouts.setting_of(row) | fine_grained.names(row["captions"], labels, classes)
        for row in found["rows"]
    ]
    return layouts.table_b2(rows)


def table_b3(sweeps: layouts.Sweeps, args: argparse.Namespace) -> Result:
    """The test on the published percentages, and on a file of answers."""
    answers = None
    if args.answers:
        try:
            lines = Path(args.answers).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UserError(f"cannot read the answers {args.answers!r}: {error.strerror}") from None
        answers = binomial.test(line.strip() for line in lines if line.strip())
    return layouts.table_b3(answers)


TABLES = {
    **{name: (lambda s, _, make=make: make(s)) for name, make in layouts.OF_SWEEPS.items()},
    "table_b2": table_b2,
    "table_b3": table_b3,
}


def read_sweeps(items: list[str]) -> layouts.Sweeps:
    """{name: sweep} of NAME=FILE words."""
    found = {}
    for name, path in sweep.named(items, "--sweep").items():
        try:
            found[name] = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot read the sweep {path!r}: {error.strerror}") from None
        except ValueError as error:
            raise UserError(f"the sweep {path!r} is not JSON: {error}") from None
        if not isinstance(found[name], dict) or "rows" not in found[name]:
            raise UserError(f"{path!r} is no sweep: make one with experiments.guiding.sweep")
    return found


def make_sweeps(args: argparse.Namespace) -> layouts.Sweeps:
    """The sweeps of --captioner and --data; named by what there are several of."""
    captioners = sweep.named(args.captioner, "--captioner")
    data = sweep.named(args.data, "--data")
    if len(captioners) > 1 and len(data) > 1:
        raise UserError("give several --captioner or several --data, not both")
    pairs = {
        (data_name if len(data) > 1 else name): (run, spec)
        for name, run in captioners.items()
        for data_name, spec in data.items()
    }
    found = {}
    for name, (run, spec) in pairs.items():
        found[name] = sweep.asked(args, run, spec)
        sweep.save(args.out / f"{name}.sweep.json", found[name])
    return found


def write(name: str, result: Result, out: Path) -> list[Path]:
    """The files of a table; their paths."""
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(out / f"{name}.md") as file:
        file.write(result.markdown)
    with whole_file(out / f"{name}.json") as file:
        json.dump(result.data, file, indent=1)
    written = [out / f"{name}.md", out / f"{name}.json"]
    if result.panels:
        pictures = [out / f"{name}.png", out / f"{name}.svg"]
        curves.draw(pictures, result.panels, result.curves)
        written += pictures
    return written


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.guiding.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=sorted(TABLES), help="which one")
    parser.add_argument("--sweep", nargs="*", default=[], help="[NAME=]FILE of the sweep command")
    parser.add_argument("--captioner", nargs="*", default=[], help="[NAME=]RUN")
    parser.add_argument("--data", nargs="*", default=[], help="[NAME=]DATA of capjax.data.spec")
    parser.add_argument("--out", type=Path, required=True, help="the folder that is written to")
    parser.add_argument("--classes", default="", help="table_b2: a file of class names")
    parser.add_argument("--answers", default="", help="table_b3: lines first, second or neither")
    sweep.add_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    sweeps: dict[str, Any] = {}
    if args.table != "table_b3":
        if bool(args.sweep) == bool(args.captioner and args.data):
            raise UserError(f"{args.table} needs --sweep, or both --captioner and --data")
        sweeps = read_sweeps(args.sweep) if args.sweep else make_sweeps(args)
    result = TABLES[args.table](sweeps, args)
    print(result.markdown)
    for path in write(args.table, result, args.out):
        print(path)
    return 0


if __name__ == "__main__":
    exit_cleanly(main)
