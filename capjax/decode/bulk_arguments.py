"""The command line of `python -m capjax.caption`, in groups that a newcomer can read one by one."""

from __future__ import annotations

import argparse

from capjax.parallel import process_flags


def parser(description: str) -> argparse.ArgumentParser:
    """All of it; what does not go together is found out later, in sentences."""
    parser = argparse.ArgumentParser(
        prog="python -m capjax.caption",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, help="a captioner's run directory")
    _add_pictures(parser.add_argument_group("which pictures"))
    _add_captions(parser.add_argument_group("what captions"))
    _add_random(parser.add_argument_group("captions drawn at random"))
    _add_output(parser.add_argument_group("output"))
    _add_work(parser.add_argument_group("how it is done"))
    process_flags.add(parser)
    return parser


def _add_pictures(group) -> None:
    group.add_argument("--images", nargs="+", help="pictures, and folders with pictures below them")
    group.add_argument(
        "--data",
        metavar="SOURCE",
        help="a data set in place of --images: a manifest .jsonl, tars or Parquet files (a file or "
        "a quoted pattern), tfds:NAME:SPLIT, or a .json with a source section of a config",
    )
    group.add_argument(
        "--data-fields",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="fields of that source, such as caption=null for tars without captions",
    )
    group.add_argument(
        "--max-bad-fraction",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of this host's pictures that may be unusable before it stops (default: 0.05)",
    )


def _add_captions(group) -> None:
    group.add_argument(
        "--guidance",
        default="1",
        metavar="GAMMA",
        help="guidance scale, or several separated by commas, which share the work of looking at "
        "the picture: 1 is plain decoding, 1.5 to 3 give more specific captions, 0 ignores the "
        "picture (default: 1)",
    )
    group.add_argument(
        "--prompt",
        default="",
        metavar="TEXT",
        help='what every caption begins with, such as "a photo of"',
    )
    group.add_argument(
        "--must-contain",
        nargs="+",
        default=[],
        metavar="PHRASE",
        help='what every caption must contain, such as "red" "sofa|couch" (one of the two); '
        "with or without a capital; needs --beams, best twice as many as the phrases have tokens",
    )
    group.add_argument(
        "--ban",
        nargs="+",
        default=[],
        metavar="WORD",
        help="words and phrases that no caption may contain, nor words that begin with the same "
        "tokens",
    )
    group.add_argument(
        "--beams",
        type=int,
        default=1,
        metavar="N",
        help="follow the N best captions side by side and keep the best in the end (default: 1, "
        "the likeliest word each time)",
    )
    group.add_argument(
        "--length-penalty",
        type=float,
        metavar="X",
        help="with beams: a caption's score is its log-probability / length ** X, so that more "
        "than 0 favours long captions (default: 1)",
    )
    group.add_argument(
        "--min-length", type=int, default=0, metavar="N", help="no end before N tokens (default: 0)"
    )
    group.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="at most N tokens behind the prompt (default: what the model has room for)",
    )
    group.add_argument(
        "--no-repeat-ngram",
        type=int,
        default=0,
        metavar="N",
        help="no N tokens in a row twice in a caption (default: 0, they may)",
    )
    group.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="X",
        help="above 1, words that were written become less likely (default: 1)",
    )


def _add_random(group) -> None:
    group.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="draw N captions of each picture at random, in place of the likeliest words",
    )
    group.add_argument(
        "--temperature",
        type=float,
        metavar="X",
        help="below 1 the draws keep to what is likely, above 1 they are bolder (default: 1)",
    )
    group.add_argument(
        "--top-k", type=int, metavar="K", help="draw among the K likeliest words (default: all)"
    )
    group.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="draw among the fewest words that together have the probability P (default: 1, all)",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        help="another seed, other draws; a picture's draws depend on the seed and its key alone "
        "(default: 0)",
    )
    group.add_argument(
        "--best-of",
        choices=("likelihood", "clipscore"),
        help="keep only the best sample: the likeliest given the picture, or the one that an "
        "encoder finds nearest to it",
    )
    group.add_argument(
        "--encoder", metavar="RUN", help="the dual encoder's run directory for clipscore"
    )


def _add_output(group) -> None:
    group.add_argument(
        "--out",
        help="NAME.jsonl: one file; any other name: a folder of parts, which a stopped job "
        "goes on with (default: the terminal)",
    )
    group.add_argument(
        "--format",
        choices=("jsonl", "parquet"),
        default="jsonl",
        help="of the parts (default: jsonl)",
    )
    group.add_argument(
        "--part-size", type=int, default=1000, metavar="N", help="pictures a part (default: 1000)"
    )
    group.add_argument(
        "--shard",
        metavar="I/N",
        help="this host is number I of N that share the folder, counted from 0 (default: the "
        "number of this process and how many there are)",
    )


def _add_work(group) -> None:
    group.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="pictures at a time, on all devices together (default: 16)",
    )
    group.add_argument(
        "--weights",
        choices=("float32", "int8"),
        default="float32",
        help="int8: a quarter of the memory for the parameters; captions may differ in a few words "
        "(default: float32)",
    )
    group.add_argument(
        "--cache-dtype",
        choices=("float32", "bfloat16"),
        help="of the keys and values that decoding keeps; bfloat16: half the memory, and captions "
        "may differ in a few words (default: as the model computes)",
    )
    group.add_argument(
        "--threads",
        type=int,
        default=8,
        metavar="N",
        help="pictures that are read and decoded at the same time (default: 8)",
    )
