"""Captions for your own pictures, by a trained captioner, at one or several guidance scales.

  python -m capjax.caption --checkpoint runs/demo/captioner --images photos/ --guidance 1,2 \\
      --out captions.jsonl

A line of the output: {"image", "guidance_scale", "caption", "log_prob", "truncated"}; log_prob is
log p(caption | picture) in nats, truncated says that the caption reached the longest length
without an end. Without --out the lines go to the terminal.
"""

from __future__ import annotations

import argparse
import json
import sys

from capjax.errors import UserError, exit_cleanly
from capjax.whole_file import whole_file


def parse_scales(text: str) -> tuple[float, ...]:
    """ "1,1.5,2" -> (1.0, 1.5, 2.0); UserError for what is no list of numbers."""
    from capjax.decode.guidance import check_scale

    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(
            f"cannot read guidance scales from {text!r}: give numbers, such as 1,1.5,2"
        ) from error
    check_scale(scales, len(scales))
    if len(set(scales)) != len(scales):
        raise UserError(f"a guidance scale is given twice in {text!r}: name each once")
    return scales


def caption_lines(run, source, scales, *, batch_size: int, max_bad_fraction: float):
    """Yields a dict for each picture of `source` and each scale, in order."""
    from tqdm import tqdm

    from capjax.data.loader import record_batches, stack_images
    from capjax.data.skips import SkipBudget
    from capjax.decode.captioner import Captioner

    captioner = Captioner(run.model, run.params, run.tokenizer)
    skips = SkipBudget(len(source), max_bad_fraction)
    side, rule = run.model.image_size, run.config.data.resize
    with tqdm(total=len(source), unit="picture", disable=len(source) < 2) as bar:
        for records in record_batches(source, batch_size, skips):
            context = captioner.encode(stack_images(records, batch_size, side, rule)).context
            written = [captioner.write(context, scale) for scale in scales]
            bar.update(len(records))
            for row, record in enumerate(records):
                for scale, captions in zip(scales, written, strict=True):
                    yield {
                        "image": record["key"],
                        "guidance_scale": scale,
                        "caption": captions[row].text,
                        "log_prob": round(captions[row].log_prob, 4),
                        "truncated": captions[row].truncated,
                    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capjax.caption",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, help="a captioner's run directory")
    parser.add_argument(
        "--images", nargs="+", required=True, help="pictures, and folders with pictures below them"
    )
    parser.add_argument(
        "--guidance",
        default="1",
        help="guidance scale gamma, or several separated by commas: 1 is plain decoding, "
        "1.5 to 3 give more specific captions, 0 ignores the picture (default: 1)",
    )
    parser.add_argument("--out", help="a JSONL file to write (default: the terminal)")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures at a time")
    parser.add_argument(
        "--max-bad-fraction",
        type=float,
        default=0.05,
        help="share of pictures that may fail to decode before the run stops (default: 0.05)",
    )
    args = parser.parse_args()

    from capjax.data.folder import Source
    from capjax.decode.guidance import warn_if_untrained
    from capjax.runs import open_run

    scales = parse_scales(args.guidance)
    if args.batch_size < 1:
        raise UserError(f"--batch-size is {args.batch_size}: give at least 1")
    source = Source(args.images)
    run = open_run(args.checkpoint)
    warn_if_untrained(run.config, scales)
    lines = caption_lines(
        run,
        source,
        scales,
        batch_size=min(args.batch_size, len(source)),
        max_bad_fraction=args.max_bad_fraction,
    )
    if not args.out:
        for line in lines:
            print(json.dumps(line, ensure_ascii=False))
        return
    with whole_file(args.out) as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(f"{args.out}: captions of {len(source)} pictures", file=sys.stderr)


if __name__ == "__main__":
    exit_cleanly(main)
