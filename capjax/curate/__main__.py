"""Pipelines over data sets of pictures and captions: run one, look at what came out, compare two.

  python -m capjax.curate run configs/curate/clean_captions.py --input captions.jsonl --output OUT
  python -m capjax.curate report OUT
  python -m capjax.curate diff OUT OTHER

SOURCE is what `python -m capjax.data` reads: a manifest, tars, Parquet, tfds:NAME:SPLIT, a folder,
or a .json with a source section; further fields follow --input as name=value. A run that was
stopped goes on with the same command. With --cache another run's results are used where nothing
has changed. Limits on calls, tokens and cost hold for all that was paid with one cache; at a limit
the run ends with code 3, and goes on when the limit is raised.
"""

from __future__ import annotations

import argparse
import sys

from capjax.errors import exit_cleanly

EXIT_QUOTA = 3


def main() -> None:
    """Parses the command line and does what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m capjax.curate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (_add_run, _add_report, _add_diff):
        add(commands)
    args = parser.parse_args()
    exit_cleanly(lambda: args.run(args))


def _add_run(commands) -> None:
    parser = commands.add_parser("run", help="fill a folder with parts, or go on with it")
    parser.add_argument("pipeline", help="a Python file with get_pipeline, FILE.py[:arg]")
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="SOURCE", help="and fields as name=value"
    )
    parser.add_argument("--output", required=True, help="a new folder, or one to go on with")
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--cache", help="folder of kept results (default OUTPUT/cache)")
    parser.add_argument("--part-size", type=int, default=1000, help="records (default 1000)")
    parser.add_argument("--max-calls", type=int, help="of language models on servers")
    parser.add_argument("--max-tokens", type=int, help="of prompts and answers together")
    parser.add_argument("--max-cost", type=float, help="in the currency of the model's prices")
    parser.add_argument(
        "--max-bad-fraction", type=float, default=0.01, help="of the records (default 0.01)"
    )
    parser.add_argument("--processes", type=int, default=0, help="default: all cores")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--chunk", type=int, default=64, help="records at a time (default 64)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from capjax.curate.cache import Quota
    from capjax.curate.local import Options, run
    from capjax.curate.pipeline import load
    from capjax.data.spec import open_spec, parse_fields
    from capjax.errors import UserError

    for name in ("part_size", "threads", "chunk"):
        if getattr(args, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} is {getattr(args, name)}: give at least 1")
    text, *fields = args.input
    pipeline = load(args.pipeline)
    settings = dict(
        source_text=" ".join(args.input),
        cache=args.cache,
        part_size=args.part_size,
        quota=Quota(args.max_calls, args.max_tokens, args.max_cost),
        max_bad_fraction=args.max_bad_fraction,
        options=Options(chunk=args.chunk, processes=args.processes, threads=args.threads),
    )
    if args.engine == "ray":
        from capjax.curate.on_ray import run_on_ray

        summary = run_on_ray(pipeline, text, parse_fields(fields), args.output, **settings)
    else:
        source = open_spec(text, parse_fields(fields))
        summary = run(pipeline, source, args.output, **settings)
    paid = summary.paid
    print(
        f"{args.output}: {summary.parts:,} of {summary.all_parts:,} parts of {summary.records:,} "
        f"records, {summary.bad:,} of them left out as bad; paid in all: {paid.calls:,} calls, "
        f"{paid.tokens:,} tokens, cost {paid.cost:.2f}; {summary.seconds:,.1f} s",
        file=sys.stderr,
    )
    if summary.stopped:
        print(f"stopped: {summary.stopped}; raise it to go on", file=sys.stderr)
        return EXIT_QUOTA
    return 0


def _add_report(commands) -> None:
    parser = commands.add_parser("report", help="counts, lengths, words, scores, a sample page")
    parser.add_argument("output", help="the folder of a run")
    parser.add_argument("--page", help="an HTML file (default OUTPUT/report.html)")
    parser.add_argument("--before", help="the column of captions as they were")
    parser.add_argument("--after", help="the column of captions as they are now")
    parser.add_argument("--samples", type=int, default=24, help="records on the page")
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> None:
    from pathlib import Path

    from capjax.curate.report import report, write_page

    found = report(args.output, args.before, args.after, args.samples)
    print(found.text())
    page = args.page or Path(args.output) / "report.html"
    write_page(found, page)
    print(f"page: {page}")


def _add_diff(commands) -> None:
    parser = commands.add_parser("diff", help="what differs in settings and in records")
    parser.add_argument("a", help="the folder of a run")
    parser.add_argument("b", help="the folder of another one")
    parser.add_argument("--samples", type=int, default=10, help="records to show")
    parser.set_defaults(run=_diff)


def _diff(args: argparse.Namespace) -> None:
    from capjax.curate.compare import compare

    print(compare(args.a, args.b, args.samples))


if __name__ == "__main__":
    main()
