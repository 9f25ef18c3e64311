"""A self-critical step against its parts, and what rewards of strings add to it.

    python -m benchmarks.rl [--batch 64] [--samples 5] [--size tiny] [--microbatches 1 2 4]
        [--repeats 9] [--elsewhere 0.2]

The captioner is CoCa with random weights on generated scenes: its captions hardly ever end, so that
they are the longest to draw, to score and to learn from. First the parts, each by itself and waited
for: drawing the samples and the greedy captions, their text, CIDEr-D of it on the host, gradients.
Then whole steps, in turns:

    device      the reward is a JAX function, length: one program
    host        the same reward as a Python function: a sequence of programs
    cider       CIDEr-D, on the cores of this machine
    elsewhere   the reward of `host` from a machine that takes a share of the step to answer

What scoring adds is the ratio of one of the last two and `host`, for each number of microbatches;
with 1 nothing is overlapped. Prints medians, wall time and the process's CPU time, and of ratios
median, lowest and highest of the turns. Where the devices are the cores that also score, CPU time
cannot be hidden, only waiting. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from capjax.data.scenes import Source
from capjax.data.tokenizer import train as train_tokenizer
from capjax.errors import exit_cleanly
from capjax.models.coca import Model
from capjax.parallel.mesh import batch_sharding, enable_compile_cache, make_mesh, put_batch
from capjax.rollout_step import RolloutStep
from capjax.tasks.policy import Task
from capjax.train_step import abstract_state, init_state

SIDE, LENGTH, CORPUS = 32, 24, 2000
SCENES = {"name": "capjax.data.scenes", "image_size": SIDE, "size": CORPUS}
REWARDS: dict[str, dict[str, Any]] = {
    "device": {"name": "capjax.rewards.length", "most": 10},
    "host": {"name": "capjax.rewards.function", "function": "benchmarks.rl:excess"},
    "cider": {"name": "capjax.rewards.cider", "corpus": SCENES},
    "elsewhere": {"name": "capjax.rewards.function", "function": "benchmarks.rl:answer"},
}


def excess(candidates: list[str], references: Any, keys: Any) -> list[float]:
    """Minus the words beyond ten."""
    return [-float(max(text.count(" ") - 9, 0)) for text in candidates]


def answer(candidates: list[str], references: Any, keys: Any, seconds: float = 0.0) -> list[float]:
    """The same after a while; seconds: for each caption."""
    time.sleep(seconds * len(candidates))
    return excess(candidates, references, keys)


class World:
    """A captioner, its tokenizer and one batch."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        source = Source(image_size=SIDE, size=CORPUS)
        texts = (text for index in range(500) for text in source.captions(index))
        self.tokenizer = train_tokenizer(texts, 256, LENGTH)
        self.model = Model(self.tokenizer.vocab_size, LENGTH, SIDE, size=args.size)
        records = [source[index] for index in range(args.batch)]
        self.rows = {name: [r[name] for r in records] for name in ("key", "captions")}
        first = [record["captions"][0] for record in records]
        self.batch = {
            "image": np.stack([record["image"] for record in records]),
            "tokens": self.tokenizer.encode_batch(first, truncate=True),
        }
        self.mesh = make_mesh({"data": -1})

    def task(self, reward: str, **options: Any) -> Task:
        section = REWARDS[reward] | ({"options": options} if options else {})
        return Task(
            model=self.model,
            tokenizer=self.tokenizer,
            rewards={"r": section},
            baseline="greedy",
            sampling={"samples": self.args.samples},
        )

    def step(self, task: Task, microbatches: int) -> Callable[[], None]:
        """A step that is waited for; it keeps its own state."""
        rate = optax.constant_schedule(0.0)  # the same captions each time
        tx = optax.adam(rate)
        abstract = abstract_state(task, tx, 0.0, ("tensor",), self.mesh)
        state = init_state(task, tx, 0.0, abstract, 0)
        step = RolloutStep(
            task, tx, rate, seed=0, accumulate_steps=microbatches, ema_decay=0.0,
            abstract=abstract, mesh=self.mesh,
        )  # fmt: skip
        held = {"state": state}

        def run() -> None:
            batch = put_batch(self.batch, batch_sharding(self.mesh))
            held["state"], metrics = step(held["state"], batch, self.rows)
            jax.block_until_ready((held["state"], metrics))

        return run


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """(wall, CPU) seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def milliseconds(pairs: list[tuple[float, float]]) -> str:
    wall, cpu = (statistics.median(each) * 1e3 for each in zip(*pairs, strict=True))
    return f"{wall:9.1f} ms wall {cpu:9.1f} ms CPU"


def parts(world: World) -> None:
    """Each part of a step by itself."""
    task = world.task("cider")
    batch = put_batch(world.batch, batch_sharding(world.mesh))
    params = jax.jit(task.init)(jax.random.key(0))
    own, rng = np.arange(world.args.batch), jax.random.key(1)
    sample = jax.jit(task.sample)
    rollout = sample(params, batch, own, rng)
    tokens = np.asarray(rollout.tokens)
    decode = world.tokenizer.decode
    texts = [[decode(row[1:].tolist()) for row in group] for group in tokens]
    told = task.tell(world.rows, tokens)  # references are tokenised, as after the first epoch
    carried = task.carried(params)
    totals = task.totals(batch["tokens"], [rollout.tokens])

    @jax.jit
    def gradients(params: Any, told: Any) -> Any:
        judge = task.judge(carried, {}, {}, batch, own, rollout, told)

        def loss(params: Any) -> Any:
            return task.learn(params, batch, rollout, judge, totals, 1, rng)[0]

        return jax.grad(loss)(params)

    def strings() -> None:
        for group in tokens:
            for row in group:
                decode(row[1:].tolist())

    todo = {
        "drawing, samples and greedy": lambda: jax.block_until_ready(
            sample(params, batch, own, rng)
        ),
        "text of the captions": strings,
        "CIDEr-D of the text": lambda: task.rewards.tell(
            world.rows["key"], world.rows["captions"], texts
        ),
        "judging and gradients": lambda: jax.block_until_ready(gradients(params, told)),
    }
    for name, function in todo.items():
        function()
        print(f"  {name:<28} {milliseconds([timed(function) for _ in range(world.args.repeats)])}")


def whole(world: World, microbatches: int) -> None:
    """Steps of each kind in turns."""
    args = world.args
    steps = {name: world.step(world.task(name), microbatches) for name in ("device", "host")}
    for run in steps.values():
        run()
    seconds = statistics.median(timed(steps["host"])[0] for _ in range(3)) * args.elsewhere
    each = seconds / (args.batch * (args.samples + 1))
    steps["cider"] = world.step(world.task("cider"), microbatches)
    steps["elsewhere"] = world.step(world.task("elsewhere", seconds=each), microbatches)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for run in steps.values():
        run()
    for repeat in range(args.repeats):
        for name in list(steps)[:: 1 if repeat % 2 == 0 else -1]:
            found[name].append(timed(steps[name]))
    print(f"steps of {microbatches} microbatches")
    for name, pairs in found.items():
        line = f"  {name:<28} {milliseconds(pairs)}"
        if name != "device":
            base = found["device" if name == "host" else "host"]
            ratios = [a[0] / b[0] for a, b in zip(pairs, base, strict=True)]
            against = "device" if name == "host" else "host"
            line += (
                f"   / {against} {statistics.median(ratios):.3f} "
                f"({min(ratios):.3f} to {max(ratios):.3f})"
            )
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--size", default="tiny", help="of the captioner; see capjax.models.sizes")
    parser.add_argument("--microbatches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--elsewhere", type=float, default=0.2, help="seconds of the scorer, as a share of a step"
    )
    enable_compile_cache()  # the sides on the host are one sequence of programs
    world = World(parser.parse_args())
    device = jax.devices()[0].device_kind
    print(f"{len(jax.devices())} x {device}, {world.args.batch} pictures x {world.args.samples}")
    with jax.set_mesh(world.mesh):
        parts(world)
        for count in world.args.microbatches:
            whole(world, count)


if __name__ == "__main__":
    exit_cleanly(main)
