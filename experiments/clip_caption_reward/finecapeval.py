"""FineCapEval: do captions say what people wrote of background, objects and relations?

  python -m experiments.clip_caption_reward.finecapeval --data FineCapEval.csv \\
      --candidates captions.json [--match word] [--json OUT]

The file has 5,000 rows (picture, caption, background, object, relation), five of each picture, in
which phrases are parted by a backslash and a semicolon. For each phrase of an aspect the share of
its words that the caption has; the mean over the phrases of all annotators, then over pictures,
times 100. Words are stems (`porter`). captions.json is {name of the picture without its suffix:
caption}.

    parity   a stem counts where it is a piece of the caption as it is written: "car" is in "a red
             carpet". This is what the released code does, and what published numbers are.
    word     a stem counts where it is a stem of one of the caption's words; phrases without a word
             are left out, which otherwise score 0

`overall` are the usual metrics against the five captions. Rows with an empty cell are left out, as
in the released code.

Letters: N pictures. Raises `UserError` for another file, or pictures without a caption.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

from capjax.errors import UserError, exit_cleanly
from capjax.metrics import References, evaluate, ptb
from capjax.whole_file import whole_file
from experiments.clip_caption_reward.porter import stem

ASPECTS = ("background", "object", "relation")
COLUMNS = ("image", "caption", *ASPECTS)
ROWS = 5000
MATCHES = ("parity", "word")
SEPARATOR = "\\;"
# What pandas, by which the released code reads the file, takes for an empty cell.
EMPTY = frozenset(
    ("", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA", "#N/A N/A", "NaN", "nan", "-NaN", "-nan")
) | frozenset(("NULL", "null", "None", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"))


@dataclasses.dataclass
class Annotations:
    """Of one picture, by all who wrote of it."""

    captions: list[str] = dataclasses.field(default_factory=list)
    phrases: dict[str, list[list[str]]] = dataclasses.field(  # aspect -> phrases -> stems
        default_factory=lambda: {aspect: [] for aspect in ASPECTS}
    )


def read(path: str | Path, rows: int = ROWS) -> dict[str, Annotations]:
    """What the file says of each picture, by its name without the suffix; it must have `rows`."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            columns, found = tuple(reader.fieldnames or ()), list(reader)
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from error
    if set(columns) != set(COLUMNS) or len(found) != rows:
        raise UserError(
            f"{str(path)!r} is not FineCapEval: expected {rows} rows of {', '.join(COLUMNS)}, "
            f"found {len(found)} rows of {', '.join(columns) or 'nothing'}"
        )
    pictures: dict[str, Annotations] = {}
    for row in found:
        if EMPTY.isdisjoint(row[name] for name in COLUMNS):
            own = pictures.setdefault(row["image"].split(".")[0], Annotations())
            own.captions.append(row["caption"])
            for aspect in ASPECTS:
                own.phrases[aspect] += phrases(row[aspect])
    return pictures


def phrases(cell: str) -> list[list[str]]:
    """The stems of each phrase of a cell; a single letter is no phrase."""
    return [stems(phrase) for phrase in cell.lower().split(SEPARATOR) if len(phrase) > 1]


def stems(text: str) -> list[str]:
    """Of each word, without punctuation."""
    words = (token for token in ptb.tokenize(text.lower()) if not re.match("-[lr][rsc]b-$", token))
    plain = (re.sub("[^a-zA-Z0-9]", "", stem(word)) for word in words)
    return [word for word in plain if word]


def recall(caption: str, wanted: list[list[str]], match: str = "parity") -> float:
    """The mean share of a phrase's stems that the caption has, 0 to 1; 0 without phrases."""
    if match not in MATCHES:
        raise UserError(f"match={match!r} must be one of {', '.join(MATCHES)}")
    if match == "word":
        wanted = [phrase for phrase in wanted if phrase]
    there = caption if match == "parity" else frozenset(stems(caption))
    shares = [
        sum(word in there for word in phrase) / len(phrase) if phrase else 0.0 for phrase in wanted
    ]
    return sum(shares) / len(shares) if shares else 0.0


def score(
    captions: Mapping[str, str], pictures: Mapping[str, Annotations], match: str = "parity"
) -> dict[str, float]:
    """{aspect: 0 to 100}: the mean over all pictures."""
    missing = sorted(set(pictures) - set(captions))
    if missing:
        raise UserError(
            f"{len(missing)} of {len(pictures)} pictures of FineCapEval have no caption, such as "
            f"{missing[0]!r}: caption all of them, by their names without the suffix"
        )
    if not pictures:
        raise UserError("no row of FineCapEval is complete: nothing to score")
    return {
        aspect: 100
        * sum(recall(captions[name], own.phrases[aspect], match) for name, own in pictures.items())
        / len(pictures)
        for aspect in ASPECTS
    }


def overall(
    captions: Mapping[str, str], pictures: Mapping[str, Annotations]
) -> dict[str, float | None]:
    """BLEU, ROUGE-L, CIDEr against each picture's captions."""
    references = References.from_captions({name: own.captions for name, own in pictures.items()})
    return dict(evaluate({name: captions[name] for name in pictures}, references).metrics)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="FineCapEval.csv")
    parser.add_argument("--candidates", required=True, help="JSON: {picture: caption}")
    parser.add_argument("--match", default="parity", choices=MATCHES)
    parser.add_argument("--json", default="", help="where to write the scores")
    args = parser.parse_args()
    pictures = read(args.data)
    try:
        captions = json.loads(Path(args.candidates).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {args.candidates!r}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{args.candidates!r} is no JSON: {error}") from error
    if not isinstance(captions, dict) or not all(isinstance(x, str) for x in captions.values()):
        raise UserError(f"{args.candidates!r} must be one object, {{picture: caption}}")
    found = score(captions, pictures, args.match) | overall(captions, pictures)
    for name, value in found.items():
        print(f"{name:<12}{value:.4f}")
    if args.json:
        with whole_file(args.json) as file:
            json.dump({"match": args.match, "pictures": len(pictures)} | found, file, indent=2)
    return 0


if __name__ == "__main__":
    exit_cleanly(main)
