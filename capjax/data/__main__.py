"""Looking at data sets, and writing them in another form.

  python -m capjax.data inspect captions.jsonl --page page.html
  python -m capjax.data prepare captions.jsonl --to shards --form array_record

SOURCE is a manifest (.jsonl), tars, Parquet or ArrayRecord files (a file or a quoted pattern),
tfds:NAME:SPLIT, a folder of pictures, or a .json that holds a source section of a config; further
fields of the source are given as name=value behind it.
"""

from __future__ import annotations

import argparse

from capjax.errors import exit_cleanly


def main() -> None:
    """Parses the command line and does what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m capjax.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (_add_inspect, _add_prepare):
        add(commands)
    args = parser.parse_args()
    exit_cleanly(lambda: args.run(args))


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="see above")
    parser.add_argument(
        "fields", nargs="*", metavar="name=value", help="fields of the source, as in a config"
    )


def _add_inspect(commands) -> None:
    parser = commands.add_parser("inspect", help="counts, fields, lengths, failures, pictures")
    _add_source(parser)
    parser.add_argument("--page", help="an HTML file of pictures and captions to write")
    parser.add_argument(
        "--decode", type=int, default=200, help="how many pictures to decode; 0: all (default 200)"
    )
    parser.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> None:
    from capjax.data.inspect import inspect, write_page
    from capjax.data.spec import open_spec, parse_fields

    findings = inspect(open_spec(args.source, parse_fields(args.fields)), args.decode)
    print(findings.text())
    if args.page:
        write_page(findings, args.page, args.source)
        print(f"pictures and captions: {args.page}")


def _add_prepare(commands) -> None:
    parser = commands.add_parser("prepare", help="write a source as shards, byte for byte")
    _add_source(parser)
    parser.add_argument("--to", required=True, help="a new folder, or one to go on with")
    parser.add_argument("--form", required=True, help="tar, parquet or array_record")
    parser.add_argument("--records-per-shard", type=int, default=1000, help="default 1000")
    parser.add_argument(
        "--max-bad-fraction", type=float, default=0.0, help="of records that cannot be used"
    )
    parser.set_defaults(run=_prepare)


def _prepare(args: argparse.Namespace) -> None:
    from capjax.data.prepare import prepare
    from capjax.data.spec import parse_fields, section_of

    state = prepare(
        section_of(args.source, parse_fields(args.fields)),
        args.to,
        args.form,
        records_per_shard=args.records_per_shard,
        max_bad_fraction=args.max_bad_fraction,
    )
    written = sum(shard["records"] for shard in state["shards"].values())
    size = sum(shard["bytes"] for shard in state["shards"].values())
    print(
        f"{args.to}: {written:,} records in {len(state['shards'])} shards, {size / 1e6:,.1f} MB; "
        f"{len(state['left_out'])} left out"
    )


if __name__ == "__main__":
    main()
