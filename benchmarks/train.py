"""A training step of CLIP or CoCa ViT-B/32: this project's against OpenCLIP's, on one machine.

    python -m benchmarks.train --model clip|coca [--batch 32] [--steps 5] [--repeats 3]
        [--threads 2] [--dtype float32|bfloat16] [--device cpu|gpu] [--compile] [--peer PYTHON]

A step is the forward pass of all towers, the loss (CoCa: contrastive and captions), the backward
pass and AdamW on all parameters, from pictures in memory (uint8, normalised within the step). Ours
is the step of the training loop, compiled, with its state donated; the peer's is OpenCLIP's model
and loss in eager PyTorch (--compile: torch.compile) with the fused AdamW. Both start from the
weights that OpenCLIP draws, take the same batch at the same rate and decay, and must give the same
losses in the first steps. bfloat16 is OpenCLIP's amp_bf16 and our `dtype`: parameters and their
updates are float32.

The sides run in processes of their own, in turn, on a CPU on the same --threads cores (the affinity
of the process, which is what XLA's threads follow). Prints for each its samples a second, CPU
seconds, peak memory (resident during the timed steps on a CPU; of the device's allocator on a GPU),
what comes before the second step (compilation), operations a second by the formula of
`capjax.flops` and their share of the device's peak where that is known; and the ratios: median,
lowest and highest of the pairs. Needs a quiet machine: PyTorch's threads wait for each other by
spinning, so that on a busy one both its wall time and its CPU time multiply.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.train_sides import CHECKED
from capjax.errors import exit_cleanly
from capjax.models import clip, open_clip_coca

SIDES = ("capjax", "open_clip")
# How far apart the losses of the first steps may be, relatively.
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}


def check_peer(python: str) -> None:
    """Ends the program in one sentence unless this Python has torch and open_clip."""
    try:
        found = subprocess.run([python, "-c", "import torch, open_clip"], capture_output=True)
    except OSError as error:
        sys.exit(f"--peer {python} cannot be run ({error.strerror}): name a Python")
    if found.returncode:
        sys.exit(
            f"{python} has no torch and open_clip: install open_clip_torch there, or name a Python "
            "that has them with --peer"
        )


def child(side: str, args: argparse.Namespace, folder: Path) -> dict:
    """Runs one side in a process of its own."""
    out, options = folder / "out.json", folder / "options.json"
    out.unlink(missing_ok=True)
    given = vars(args) | {"side": side, "weights": str(folder / "weights.npz"), "out": str(out)}
    options.write_text(json.dumps(given))
    hidden = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(
        [
            sys.executable if side == "capjax" else args.peer,
            "-m",
            "benchmarks.train_sides",
            str(options),
        ],
        cwd=Path(__file__).parent.parent,
        env=os.environ
        | (hidden if args.device == "cpu" else {})
        | ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if args.huge_pages else {}),
        capture_output=True,
        text=True,
    )
    if process.returncode:
        last = "\n".join(process.stderr.splitlines()[-5:])
        sys.exit(f"the side {side!r} failed (is there memory for --batch {args.batch}?):\n{last}")
    return json.loads(out.read_text())


def check_losses(found: dict[str, dict], tolerance: float) -> None:
    """Prints both sides' first losses; ends the program if they are not the same."""
    ours, peers = (found[side]["losses"] for side in SIDES)
    worst = max(abs(a - b) / abs(b) for a, b in zip(ours, peers, strict=True))
    shown = [" ".join(f"{x:.5f}" for x in losses) for losses in (ours, peers)]
    print(
        f"losses of the first {CHECKED} steps: capjax {shown[0]}, open_clip {shown[1]}: "
        f"{worst:.1e} apart at most, relatively (allowed: {tolerance:.0e})",
        flush=True,
    )
    if not worst <= tolerance:  # not a number is a failure too
        sys.exit("the two sides do not give the same losses: their speeds are not comparable")


def speed(side: dict, args: argparse.Namespace, flops: int, peak: float) -> str:
    """One side's numbers, in words; flops of a step, and the device's in bfloat16 or 0."""
    rate = flops / side["seconds"]
    return (
        f"{args.batch / side['seconds']:.2f} samples/s ({side['seconds']:.3f} s and "
        f"{side['cpu_seconds']:.2f} CPU s a step, {side['gib']:.2f} GiB, "
        f"{rate / 1e9:.1f} GFLOP/s{f', {100 * rate / peak:.1f}% of peak' if peak else ''}, "
        f"first step after {side['first_seconds']:.1f} s)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    variants = {
        "clip": [name for name, v in clip.VARIANTS.items() if v.patch_size],
        "coca": list(open_clip_coca.VARIANTS),
    }
    parser.add_argument("--model", choices=variants, default="clip")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a process")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of processes")
    parser.add_argument("--threads", type=int, default=2, help="cores, on a CPU")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--variant", help="default: ViT-B/32 of either model")
    parser.add_argument("--attention", choices=("xla", "cudnn"), default="xla", help="ours")
    parser.add_argument("--compile", action="store_true", help="the peer by torch.compile")
    parser.add_argument(
        "--huge-pages",
        action="store_true",
        help="both sides with GLIBC_TUNABLES=glibc.malloc.hugetlb=1, for machines that give huge "
        "pages only to those who ask (transparent_hugepage is 'madvise')",
    )
    parser.add_argument("--peer", default=sys.executable, help="a Python that has open_clip")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if args.device == "cpu" and not 1 <= args.threads <= cores:
        sys.exit(f"--threads {args.threads}: this process may use 1 to {cores} cores")
    if min(args.batch - 1, args.steps, args.repeats) < 1:
        sys.exit("--batch must be 2 or more, --steps and --repeats 1 or more")
    args.variant = args.variant or {"clip": "ViT-B/32", "coca": "coca_ViT-B-32"}[args.model]
    if args.variant not in variants[args.model]:
        sys.exit(f"--variant {args.variant}: choose one of {', '.join(variants[args.model])}")
    check_peer(args.peer)
    pairs = []
    with tempfile.TemporaryDirectory() as name:
        child("weights", args, Path(name))
        for repeat in range(args.repeats):
            order = SIDES if repeat % 2 == 0 else SIDES[::-1]
            found = {side: child(side, args, Path(name)) for side in order}
            pairs.append(found)
            for side in SIDES:
                ours = found["capjax"]
                peak = ours["peak"] if args.dtype == "bfloat16" else 0.0
                print(f"{side}: {speed(found[side], args, ours['flops'], peak)}", flush=True)
            if repeat == 0:
                check_losses(found, TOLERANCE[args.dtype])
    report(pairs, args)


def report(pairs: list[dict[str, dict]], args: argparse.Namespace) -> None:
    """Prints the operations of a step and the ratios."""
    ours, peer = (pairs[0][side] for side in SIDES)
    flops = ours["flops"]
    print(
        f"{flops / 1e12:.3f} TFLOP a step by the formula; of our compiled program by XLA's count "
        f"{ours['program_flops'] / flops:.3f} of that"
    )
    setting = f"{args.variant}, {args.batch} pairs, {args.dtype}, {ours['device']}"
    setting += f", {args.threads} threads" if args.device == "cpu" else ""
    setting += ", huge pages" if args.huge_pages else ""
    print(f"{setting}; {ours['version']}, {peer['version']}{' compiled' if args.compile else ''}")
    for what, key, higher in (
        ("samples/s", "seconds", True),
        ("samples per CPU second", "cpu_seconds", True),
        ("peak memory", "gib", False),
    ):
        ratios = [pair["capjax"][key] / pair["open_clip"][key] for pair in pairs]
        ratios = [1 / ratio for ratio in ratios] if higher else ratios
        print(
            f"{what}: ours is {statistics.median(ratios):.3f} of open_clip's "
            f"(lowest {min(ratios):.3f}, highest {max(ratios):.3f}, {len(ratios)} pairs)"
        )


if __name__ == "__main__":
    exit_cleanly(main)
