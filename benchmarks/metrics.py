"""Caption metrics against their originals: pycocoevalcap with its Java programs, on the same files.

    python -m benchmarks.metrics --captions flickr30k.jsonl.gz [--repeats 3] [--claims core,meteor]

The file holds lines {"image": id, "captions": [...]}; the first caption of an image is the
candidate, the others are its references. Both sides run in processes of their own, in turn, and
must give the same values.

  core    BLEU, ROUGE-L and CIDEr with tokenisation, from captions in memory to values
  meteor  METEOR of tokenised captions; ours with its tables made before (the first time it makes
          them, which is printed too), the original from the start of its Java program

Prints each side's wall seconds and peak memory, and the ratio of the times: median, lowest and
highest of the pairs. Needs Java and pycocoevalcap (in pip's extra `meteor`).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDES = ("ours", "original")
NAMES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")


def read(path: str, images: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """({image id: candidate}, {image id: references}) of the first `images` (0: all)."""
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        lines = [json.loads(line) for line in file][: images or None]
    keyed = {str(line.get("image", line.get("image_id"))): line["captions"] for line in lines}
    return (
        {name: captions[0] for name, captions in keyed.items()},
        {name: captions[1:] for name, captions in keyed.items()},
    )


def ours(claim: str, candidates, references) -> tuple[float, dict[str, float]]:
    """(wall seconds, values)."""
    from capjax.metrics import METRICS, References, evaluate

    if claim == "core":
        start = time.perf_counter()
        values = evaluate(candidates, references).metrics
        return time.perf_counter() - start, values
    tokenised = References.from_captions(references).align(candidates)
    start = time.perf_counter()
    value = METRICS["meteor"](tokenised)["meteor"].value
    return time.perf_counter() - start, {"meteor": value}


def original(claim: str, candidates, references) -> tuple[float, dict[str, float]]:
    """The same by pycocoevalcap."""
    wrapped = {name: [{"caption": text}] for name, text in candidates.items()}
    wrapped_references = {
        name: [{"caption": text} for text in captions] for name, captions in references.items()
    }
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    start = time.perf_counter()
    tokenised = PTBTokenizer().tokenize(wrapped_references), PTBTokenizer().tokenize(wrapped)
    if claim == "meteor":
        start = time.perf_counter()
        value, _ = Meteor().compute_score(*tokenised)
        return time.perf_counter() - start, {"meteor": value}
    bleu, _ = Bleu(4).compute_score(*tokenised, verbose=0)
    rouge, _ = Rouge().compute_score(*tokenised)
    cider, _ = Cider().compute_score(*tokenised)
    values = [*bleu, float(rouge), float(cider)]
    return time.perf_counter() - start, dict(zip(NAMES, values, strict=True))


def child(side: str, claim: str, args: argparse.Namespace, folder: str) -> dict:
    """Runs one side in a process of its own: seconds, values, peak memory in GiB."""
    out = Path(folder) / "out.json"
    command = [sys.executable, "-m", "benchmarks.metrics", "--captions", args.captions]
    command += ["--images", str(args.images), "--child", side, "--claims", claim]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"XDG_CACHE_HOME": folder},  # empty before the first run
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    # On Linux in KiB; of the largest process beneath, such as Java.
    return json.loads(out.read_text()) | {"gib": usage.ru_maxrss / 2**20}


def compare(claim: str, args: argparse.Namespace, folder: str) -> None:
    pairs = []
    if claim == "meteor":
        first = child("ours", claim, args, folder)
        print(f"meteor ours, first run: {first['seconds']:.1f} s, {first['gib']:.2f} GiB")
    for repeat in range(args.repeats):
        order = SIDES if repeat % 2 == 0 else SIDES[::-1]
        found = {side: child(side, claim, args, folder) for side in order}
        pairs.append(found)
        print(
            f"{claim} "
            + ", ".join(
                f"{side} {found[side]['seconds']:.1f} s {found[side]['gib']:.2f} GiB"
                for side in SIDES
            ),
            flush=True,
        )
    for name, value in pairs[0]["original"]["values"].items():
        difference = abs(pairs[0]["ours"]["values"][name] - value)
        print(f"{claim} {name}: {value:.6f}, ours differs by {difference:.1e}")
        if difference > 1e-6:
            sys.exit(f"{name} is not the same on both sides")
    ratios = [pair["original"]["seconds"] / pair["ours"]["seconds"] for pair in pairs]
    print(
        f"{claim}: ours is {statistics.median(ratios):.1f} times as fast as the original"
        f" (lowest {min(ratios):.1f}, highest {max(ratios):.1f}, {len(ratios)} pairs)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.metrics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--captions", required=True, help="a .jsonl or .jsonl.gz")
    parser.add_argument("--images", type=int, default=0, help="the first so many (default: all)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--claims", default="core,meteor")
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run = {"ours": ours, "original": original}[args.child]
        seconds, values = run(args.claims, *read(args.captions, args.images))
        Path(args.out).write_text(json.dumps({"seconds": seconds, "values": values}))
        return
    for claim in args.claims.split(","):
        with tempfile.TemporaryDirectory() as folder:
            compare(claim, args, folder)


if __name__ == "__main__":
    main()
