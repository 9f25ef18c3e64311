"""Contrastive losses in blocks against the whole matrix of logits: memory and time of one step.

    python -m benchmarks.contrastive [--batch 32768] [--width 512] [--block 256] [--repeats 3]

A step is the loss and its gradient with respect to both embeddings and the scale, on one device,
compiled before. Both sides run in processes of their own, in turn, on the same embeddings, and
must give the same loss and gradients. Prints each side's wall seconds and the process's CPU
seconds, which a busy machine changes less (medians of its steps), its peak memory (of the whole
process on a CPU, of the device's allocator elsewhere), and the ratios: median, lowest and highest
of the pairs.

The whole matrix needs some 16 bytes x batch^2 (16 GiB at 32,768): give a smaller --batch where
there is less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDES = ("blocks", "whole")


def measure(side: str, args: argparse.Namespace) -> dict:
    """Seconds of a step, wall and CPU, the loss, and the norms of its gradients."""
    import jax
    import jax.numpy as jnp

    from capjax.tasks.contrastive_losses import contrastive_loss

    keys = jax.random.split(jax.random.key(0), 2)
    image, text = (jax.random.normal(key, (args.batch, args.width)) for key in keys)
    text = text + image  # the pairs are related: the loss is neither zero nor that of chance
    image, text = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    bias = -10.0 if args.loss == "sigmoid" else 0.0
    block = args.block if side == "blocks" else 0
    labels = jnp.arange(args.batch) // 4 if args.loss == "unicl" else None

    def loss(image, text, scale):
        return contrastive_loss(args.loss, image, text, scale, bias, labels=labels, block=block)[0]

    inputs = (image, text, jnp.float32(10.0))
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(*inputs).compile()
    seconds, cpu_seconds = [], []
    for _ in range(args.steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        value, gradients = jax.block_until_ready(step(*inputs))
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "seconds": statistics.median(seconds),
        "cpu_seconds": statistics.median(cpu_seconds),
        "values": [float(value), *(float(jnp.linalg.norm(x)) for x in gradients)],
        "gib": stats.get("peak_bytes_in_use", 0) / 2**30,
    }


def child(side: str, args: argparse.Namespace) -> dict:
    """Runs one side in a process of its own; peak memory in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "-m", "benchmarks.contrastive", "--child", side]
        for name in ("loss", "batch", "width", "block", "steps"):
            command += [f"--{name}", str(getattr(args, name))]
        process = subprocess.Popen([*command, "--out", str(out)])
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"the side {side!r} failed: is there memory for --batch {args.batch}?")
        found = json.loads(out.read_text())
        # On Linux in KiB; it counts where the device is the CPU.
        return found | {"gib": found["gib"] or usage.ru_maxrss / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.contrastive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--loss", choices=("softmax", "sigmoid", "unicl"), default="softmax")
    parser.add_argument("--batch", type=int, default=32_768)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1, help="timed steps of a process")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", default=",".join(SIDES), help="to measure one of them alone")
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        Path(args.out).write_text(json.dumps(measure(args.child, args)))
        return
    sides, pairs = args.sides.split(","), []
    for repeat in range(args.repeats):
        found = {side: child(side, args) for side in (sides if repeat % 2 == 0 else sides[::-1])}
        pairs.append(found)
        print(
            ", ".join(
                f"{x} {found[x]['seconds']:.2f} s ({found[x]['cpu_seconds']:.2f} s CPU) "
                f"{found[x]['gib']:.2f} GiB"
                for x in sides
            ),
            flush=True,
        )
    if len(sides) < 2:
        return
    worst = max(
        abs(a - b) / abs(b)
        for a, b in zip(*(pairs[0][side]["values"] for side in SIDES), strict=True)
    )
    print(f"loss and norms of gradients differ by {worst:.1e} at most, relatively")
    if worst > 1e-4:
        sys.exit("the two sides do not give the same values")
    for what, unit in (("gib", "memory"), ("seconds", "wall time"), ("cpu_seconds", "CPU time")):
        ratios = [pair["blocks"][what] / pair["whole"][what] for pair in pairs]
        print(
            f"{args.loss}, {args.batch} x {args.width}, blocks of {args.block}: {unit} of blocks is"
            f" {statistics.median(ratios):.3f} of the whole matrix's"
            f" (lowest {min(ratios):.3f}, highest {max(ratios):.3f}, {len(ratios)} pairs)"
        )


if __name__ == "__main__":
    main()
