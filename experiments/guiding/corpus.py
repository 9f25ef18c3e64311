"""Makes a corpus of caption text for the language model, without what it will be measured on.

  python -m experiments.guiding.corpus TEXT.jsonl.gz .. --spaced --out corpora/flickr30k.jsonl \\
      --without data/flickr8k/captions_dev.jsonl

A line of a text is {"image": NAME, "captions": [...]}; with "image_id" in place of "image" it is
named by that number. Pictures of the `--without` manifests are left out, by the number before the
first "_" or "." of their names: Flickr30k's 1000268201.jpg is Flickr8k's 1000268201_693b08cb0e.jpg.
`--spaced` sets punctuation apart, as Flickr8k's captions have it ("a dog runs .").
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from capjax.errors import UserError, exit_cleanly
from capjax.whole_file import whole_file

_PUNCTUATION = re.compile(r"\s*([.,;:!?])(?=\s|$)")


def number(name: str) -> str:
    """What names a picture across Flickr8k and Flickr30k."""
    return re.split(r"[_.]", name, maxsplit=1)[0]


def spaced(caption: str) -> str:
    """The caption with a blank before its punctuation, as Flickr8k's tokens are."""
    return _PUNCTUATION.sub(r" \1", caption).strip()


def records(paths: Iterable[Path]) -> Iterator[tuple[str, list[str]]]:
    """(picture, captions) of every line; UserError for a line that is none."""
    for path in paths:
        opened = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rt", encoding="utf-8") as file:
                for count, line in enumerate(file, start=1):
                    yield _record(line, f"{path}:{count}")
        except OSError as error:
            raise UserError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def _record(line: str, where: str) -> tuple[str, list[str]]:
    try:
        fields: dict[str, Any] = json.loads(line)
        return str(fields.get("image", fields.get("image_id", ""))), list(fields["captions"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where} is no record with captions ({error!r})") from None


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.guiding.corpus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("texts", nargs="+", type=Path, help="JSONL, maybe .gz")
    parser.add_argument(
        "--without", nargs="*", type=Path, default=[], help="manifests to leave out"
    )
    parser.add_argument("--spaced", action="store_true", help="set punctuation apart")
    parser.add_argument("--out", type=Path, required=True, help="the corpus that is written")
    args = parser.parse_args()
    left_out = {number(picture) for picture, _ in records(args.without)}
    kept, dropped = 0, 0
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(args.out, "w") as file:
        for picture, captions in records(args.texts):
            if picture and number(picture) in left_out:
                dropped += 1
                continue
            texts = [spaced(text) for text in captions] if args.spaced else captions
            file.write(json.dumps({"key": picture, "captions": texts}) + "\n")
            kept += 1
    print(f"{args.out}: {kept:,} records kept, {dropped:,} left out")
    return 0


if __name__ == "__main__":
    exit_cleanly(main)
