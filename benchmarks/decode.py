"""Writing captions: this project's loop against what OpenCLIP and transformers offer, on a CPU.

    python -m benchmarks.decode [--model coca|blip] [--batch 8 ..] [--tokens 40 ..] [--repeats 3]
        [--threads 2] [--peer PYTHON]

    --model coca    CoCa ViT-B/32, greedy, from pictures to tokens, against OpenCLIP's `generate`
    --model blip    BLIP base, greedy and guided, from encoded pictures to tokens, against the
                    transformers library's `generate`; there, guidance is a second pass each step

Both sides have the weights that the peer draws and must write the same tokens. A row of --tokens
holds what is read first, and no caption ends before its row does (`benchmarks.decode_sides` says
how); the whole sweep is --batch 1 8 32 --tokens 20 40 76. Each side is a process that stays, on the
same --threads cores; compilation and a short first run come before what is timed; then the sides
write in turn. Prints the median, lowest and highest of the pairs' ratios, of wall time and of CPU
time. Then, of ours alone: guided over unguided from pictures to tokens; the bytes of the cache by
formula and as they are; and how often anything is compiled over mixed captions.

Needs a quiet machine. Where cores are shared, PyTorch's threads lose much time by spinning, so that
both sides run with OMP_WAIT_POLICY=passive unless the environment says otherwise.

Letters: B batch, L tokens of a row, T = L - 1 that are written.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.decode_sides import COCA_TOKENS
from benchmarks.train import check_peer
from capjax.errors import exit_cleanly

SIDES = ("capjax", "peer")
NAMES = {"coca": "open_clip", "blip": "transformers"}
GUIDANCE = 2.0


class Side:
    """A process that answers requests; see `benchmarks.decode_sides`."""

    def __init__(self, side: str, args: argparse.Namespace, folder: Path):
        self.name, self.errors = side, folder / f"{side}.log"
        options = folder / f"{side}.json"
        given = {
            "side": side,
            "model": args.model,
            "threads": args.threads,
            "folder": str(folder),
            "longest": max(args.tokens),
        }
        options.write_text(json.dumps(given))
        python = sys.executable if side == "capjax" else args.peer
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.decode_sides", str(options)],
                cwd=Path(__file__).parent.parent,
                env={"OMP_WAIT_POLICY": "passive"}
                | os.environ
                | {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self, **request) -> dict:
        """The answer to one request; ends the program if there is none."""
        if request:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            last = "\n".join(self.errors.read_text().splitlines()[-5:])
            sys.exit(f"the side {self.name!r} failed:\n{last}")
        return json.loads(line)

    def end(self) -> int:
        """Closes its input, at which it ends; its exit status."""
        self.process.stdin.close()
        return self.process.wait()


def captions(side: Side, batch: int, tokens: int, guidance: float, **more) -> dict:
    """One run: its seconds, CPU seconds and tokens."""
    what = {"warm": False, "encode": False, "what": "captions"} | more
    return side.ask(batch=batch, tokens=tokens, guidance=guidance, **what)


def check_tokens(ours: dict, peers: dict, forced_end: bool) -> None:
    """Ends the program unless both have written the same, but for an end that the peer forces."""
    last = -1 if forced_end else None
    for row, (mine, theirs) in enumerate(zip(ours["tokens"], peers["tokens"], strict=True)):
        if mine[:last] != theirs[:last]:
            place = next(
                (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b),
                min(len(mine), len(theirs)),
            )
            sys.exit(
                f"the two sides write different tokens in row {row} from place {place} on: their "
                "speeds are not comparable"
            )


def spread(values: list[float]) -> str:
    """Median, lowest and highest, in words."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.2f} (lowest {low:.2f}, highest {high:.2f})"


def compare(
    sides: dict[str, Side], args: argparse.Namespace, batch: int, tokens: int, scale: float
):
    """Times one case in turns and prints it."""
    for side in sides.values():
        captions(side, batch, tokens, scale, warm=True)
    pairs = []
    for repeat in range(args.repeats):
        order = SIDES if repeat % 2 == 0 else SIDES[::-1]
        found = {name: captions(sides[name], batch, tokens, scale) for name in order}
        check_tokens(found["capjax"], found["peer"], args.model == "coca")
        pairs.append(found)
    guided = f", guidance {scale:g}" if scale != 1 else ""
    print(f"{args.model}, batch {batch}, rows of {tokens} tokens{guided}: the same tokens")
    for name in SIDES:
        seconds = [pair[name]["seconds"] for pair in pairs]
        cpu = [pair[name]["cpu"] for pair in pairs]
        rate = batch * (tokens - 1) / statistics.median(seconds)
        print(
            f"  {'capjax' if name == 'capjax' else NAMES[args.model]}: {rate:.1f} tokens/s, "
            f"{spread(seconds)} s, {spread(cpu)} CPU s"
        )
    for what, key in (("wall", "seconds"), ("CPU", "cpu")):
        ratios = [pair["peer"][key] / pair["capjax"][key] for pair in pairs]
        print(f"  times faster by {what} time: {spread(ratios)}, {len(pairs)} pairs", flush=True)


def guided_over_unguided(side: Side, args: argparse.Namespace, batch: int, tokens: int) -> None:
    """Prints what guidance costs, the image encoder included."""
    scales = (1.0, GUIDANCE)
    for scale in scales:
        captions(side, batch, tokens, scale, warm=True, encode=True)
    wall, cpu = [], []
    for _ in range(args.repeats):
        plain, guided = (captions(side, batch, tokens, scale, encode=True) for scale in scales)
        wall.append(guided["seconds"] / plain["seconds"])
        cpu.append(guided["cpu"] / plain["cpu"])
    print(
        f"capjax, batch {batch}, rows of {tokens} tokens, from pictures: guided over unguided "
        f"{spread(wall)} by wall time, {spread(cpu)} by CPU time, {args.repeats} pairs",
        flush=True,
    )


def cache_bytes(model: str, rows: int, longest: int, states: int) -> int:
    """Float32 keys and values of self-attention and of the picture's `states`, by formula.

    CoCa's two halves have 12 layers of self-attention each; it also keeps which tokens are seen.
    """
    layers, cross_layers, width, written, seen = {
        "coca": (24, 12, 512, COCA_TOKENS - 1, COCA_TOKENS - 1),
        "blip": (12, 12, 768, longest - 1, 0),
    }[model]
    return rows * (4 * 2 * width * (layers * written + cross_layers * states) + seen)


def facts(side: Side, args: argparse.Namespace, batch: int) -> None:
    """Prints the cache's size and the number of compilations; ends the program if they are off."""
    found = side.ask(what="facts", batch=batch)
    held = found["cache_bytes"]
    expected = cache_bytes(args.model, batch, max(args.tokens), found["states"])
    print(
        f"cache of {batch} rows: {held} bytes ({held / 2**20:.1f} MiB), by formula {expected}; "
        f"compilations in calls with other scales and prompts: {found['compilations']}"
    )
    if held != expected:
        sys.exit("the cache is not of the size that the formula gives")
    if any(found["compilations"][1:]):
        sys.exit("a loop is compiled again for captions of the same shapes")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=NAMES, default="coca")
    parser.add_argument("--batch", type=int, nargs="+", default=[8])
    parser.add_argument("--tokens", type=int, nargs="+", default=[40], help="of a row")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs of each case")
    parser.add_argument("--threads", type=int, default=2, help="cores")
    parser.add_argument("--peer", default=sys.executable, help="a Python that has the peers")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if not 1 <= args.threads <= cores:
        sys.exit(f"--threads {args.threads}: this process may use 1 to {cores} cores")
    if min(*args.batch, args.repeats) < 1:
        sys.exit("--batch and --repeats must be 1 or more")
    if not 8 <= min(args.tokens) <= max(args.tokens) <= COCA_TOKENS:
        sys.exit(f"--tokens must lie between 8 and {COCA_TOKENS}")
    check_peer(args.peer)
    with tempfile.TemporaryDirectory() as name:
        if Side("weights", args, Path(name)).end():
            sys.exit((Path(name) / "weights.log").read_text())
        sides = {side: Side(side, args, Path(name)) for side in SIDES}
        versions = [side.ask()["version"] for side in sides.values()]
        print(f"{args.threads} threads, load {os.getloadavg()[0]:.1f}; {', '.join(versions)}")
        for batch, tokens in itertools.product(args.batch, args.tokens):
            for scale in (1.0, GUIDANCE) if args.model == "blip" else (1.0,):
                compare(sides, args, batch, tokens, scale)
        ours, batch = sides["capjax"], args.batch[0]
        guided_over_unguided(ours, args, batch, args.tokens[0])
        facts(ours, args, batch)
        for side in sides.values():
            side.end()


if __name__ == "__main__":
    exit_cleanly(main)
