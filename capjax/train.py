"""The training loop: `python -m capjax.train --config configs/guiding/scenes.py --workdir DIR`.

There is one loop for all papers. What is optimised is the config's task, on its model and its
data; the loop adds the mesh, the optimiser, checkpoints, evaluators and the log:

    for each step: batch -> (state, metrics)     capjax.train_step
        every log_every steps                    metrics.jsonl
        every evals.<name>.every steps           Evaluator.run(params) -> evals/<name>/<value>
        every checkpoint.every steps             checkpoints/<step>
    and all three at the end

At one step the log comes first, then evaluators, then the checkpoint: what is on disk of a step
is complete once its checkpoint is. A run that was killed goes on from there with the same command
and ends with the numbers of one that was not. SIGTERM saves the step and exits with code 75
(`capjax.signals`), on which a scheduler should start the same command again.

Raises `UserError` for a config that cannot work, a workdir of another run or one in use, a disk
that is full, or a loss that is no longer a number.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from capjax import config as config_lib
from capjax import flops, runs
from capjax.checkpoint import Checkpoints
from capjax.config_checks import validate
from capjax.data.cache import Cached
from capjax.errors import UserError, exit_cleanly
from capjax.instruments import Instruments
from capjax.loggers import make_loggers
from capjax.logs import MetricsLog, Progress, Unwritten, read_metrics
from capjax.optimizers import frozen, make_optimizer, make_schedule
from capjax.parallel import mesh as mesh_lib
from capjax.parallel import process_flags, processes
from capjax.parts import load_parts, replaced
from capjax.retention import Policy
from capjax.rollout_step import RolloutStep, acts, check_acting, per_step
from capjax.signals import BrokenOff, Interrupted, Signals
from capjax.spikes import skipping
from capjax.startup import Startup, process_age
from capjax.train_step import abstract_state, first_params, init_state, make_step
from capjax.workdir_lock import locked

_SHOWN = 8  # keys or values in one line of the terminal; the files hold all


@dataclass(frozen=True)
class Result:
    """How a call of `train` ended."""

    step: int  # steps taken altogether
    metrics: dict[str, Any]  # the latest value of each, evaluators included


def train(config: ConfigDict, workdir: Path | str, startup: Startup | None = None) -> Result:
    """Trains to `config.steps`, from the latest checkpoint in `workdir` if there is one.

    `startup` knows how long it took to come here. Raises `Interrupted` when SIGINT or SIGTERM
    arrives; the step that was reached is saved then.
    """
    startup = startup or Startup()
    validate(config)
    workdir = Path(workdir)
    mesh = mesh_lib.make_mesh(config.mesh)
    mesh_lib.check_batch(mesh, config.batch_size, config.accumulate_steps)
    source = config_lib.instantiate(config.data.train, "Source", where="config.data.train")
    if config.data.cache:
        source = Cached(source)
    startup.done("data")
    policy = Policy(
        config.checkpoint.keep, config.checkpoint.keep_best, config.checkpoint.lower_is_better
    )
    with (
        jax.set_mesh(mesh),
        locked(workdir) if jax.process_index() == 0 else contextlib.nullcontext(),
        Checkpoints(workdir / runs.CHECKPOINTS, policy, writer=True) as checkpoints,
        Signals() as signals,
    ):
        start = checkpoints.latest or 0
        tokenizer = runs.prepare_together(workdir, config, source, started=start > 0)
        # What a signal or a kill at that very step has left undone.
        done = _evaluated(workdir / runs.METRICS, start) if start else set()
        owed = _due(config, start) - done if start else set()
        processes.barrier("read the log of the run")  # before process 0 writes to it
        log = Unwritten(workdir / runs.METRICS)
        if processes.is_first():
            log = MetricsLog(workdir / runs.METRICS, start, make_loggers(config, workdir, start))
        progress = Progress(config.steps, start, None if processes.is_first() else io.StringIO())
        try:
            if start >= config.steps and not owed:
                progress.say(f"{workdir} is finished: it has its {config.steps} steps")
            else:
                loop = _Loop(config, workdir, mesh, source, tokenizer, checkpoints, log, progress)
                with loop.instruments:
                    loop.run(start, owed, signals, startup)
        finally:
            log.close()
            progress.close()
        return Result(max(start, config.steps), _latest_metrics(log.path))


class _Loop:
    """One run: what it consists of, and the order in which things happen."""

    def __init__(self, config, workdir, mesh, source, tokenizer, checkpoints, log, progress):
        self.config, self.workdir, self.mesh, self.tokenizer = config, workdir, mesh, tokenizer
        self.checkpoints, self.log, self.progress = checkpoints, log, progress
        model = runs.make_model(config, tokenizer)
        self.instruments = Instruments(config, workdir, model, progress.say)
        self.best: dict[int, float] = {}  # config.checkpoint.best_metric by step
        runs.check_prefixes(model, source)
        self.task = runs.make_task(config, model, tokenizer)
        check_acting(self.task, config)
        # Before the first step: a typo in an evaluator should not surface hours later.
        self.evaluators = {
            name: config_lib.instantiate(
                section, "Evaluator", where=f"config.evals.{name}", model=model, tokenizer=tokenizer
            )
            for name, section in config.evals.items()
        }
        self.schedule = make_schedule(config.optimizer, config.steps)
        self.tx = make_optimizer(config.optimizer, per_step(self.schedule, self.task))
        self.abstract = abstract_state(self.task, self.tx, config.ema_decay, config.sharding, mesh)
        share = mesh_lib.input_share(mesh)
        self.loader = runs.make_loader(config, source, tokenizer, share)

    def run(self, step: int, owed: set[str], signals: Signals, startup: Startup) -> None:
        """From `step` to the end, or to `Interrupted`; evaluators in `owed` come first."""
        config, instruments = self.config, self.instruments
        startup.done("model")
        self._start_from(step)
        startup.done("state")
        with instruments.paused():
            self._evaluate(step, owed, signals)
        if signals.received:
            raise Interrupted(step, signals.received)  # the step is saved already, or is 0
        startup.done("evaluation")
        train_step = self._make_step()
        sharding = mesh_lib.batch_sharding(self.mesh)
        first, pending = step + 1, None
        try:
            while step < config.steps:
                with instruments.waiting():
                    batch = next(self.loader)
                device_batch = mesh_lib.put_batch(batch, sharding)
                if step + 1 == first:
                    startup.done("batch")
                arguments = (device_batch, *([batch] if acts(self.task) else []))
                if instruments.guard.skips:
                    arguments += (instruments.guard.limit(step + 1),)
                with instruments.trace(step + 1):
                    self.state, metrics = train_step(self.state, *arguments)
                if step + 1 == first:
                    startup.done("compile")
                    jax.block_until_ready(metrics)
                    startup.done("step")
                    self.progress.say(str(startup))
                # The step before is looked at only now, while the devices work on this one.
                self._report(pending)
                step += 1
                pending = _Pending(
                    step,
                    metrics,
                    batch["key"],
                    self.loader.bad_records,
                    instruments.tokens(batch),
                    lambda given=arguments: self._count(train_step, given),
                )
                self.checkpoints.check()
                due, saves, stop = _due(config, step), self._saves(step), signals.at(step)
                if not (due or saves or stop):
                    continue
                self._report(pending)
                pending = None
                with instruments.paused():
                    # A signal leaves little time: what is owed is done when the run goes on.
                    self._evaluate(step, set() if stop else due, signals)
                    stop = stop or signals.received
                    if saves or stop:
                        self._save(step)
                    if stop:
                        self.checkpoints.wait()
                        raise Interrupted(step, stop)
        finally:
            self.loader.close()

    def _make_step(self) -> Any:
        config = self.config
        make = RolloutStep if acts(self.task) else make_step
        step = make(
            self.task,
            self.tx,
            self.schedule,
            seed=config.seed,
            accumulate_steps=config.accumulate_steps,
            ema_decay=config.ema_decay,
            abstract=self.abstract,
            mesh=self.mesh,
            frozen=frozen(config.optimizer, self.abstract["params"]),
        )
        return skipping(step, self.abstract) if self.instruments.guard.skips else step

    def _count(self, train_step: Any, arguments: tuple) -> flops.Flops:
        """The operations of a step on these arguments (batch, ...)."""
        params, batch, devices = self.state["params"], arguments[0], self.mesh.size
        if acts(self.task):
            return train_step.flops(self.state, batch)
        return flops.count(
            self.task.loss, params, batch, train_step, (self.state, *arguments), devices
        )

    def _start_from(self, step: int) -> None:
        """The state at `step`: from its checkpoint, or the first one."""
        config = self.config
        if step:
            self.progress.say(f"going on from step {step} in {self.workdir}")
            self.state, host = self.checkpoints.restore(self.abstract, step)
            runs.check_tokenizer(self.workdir, self.tokenizer, host)
            self.loader.restore(host["data"])
            if "spikes" in host:
                self.instruments.guard.restore(host["spikes"])
            metric = config.checkpoint.best_metric
            lines = read_metrics(self.log.path)
            self.best = {x["step"]: x[metric] for x in lines if x.get(metric) is not None}
            return
        params = None
        if config.init_from:
            params, _ = runs.load_params(
                Path(config.init_from), self.abstract["params"], self.tokenizer
            )
        if config.init_parts:
            if params is None:
                params = first_params(self.task, self.abstract, config.seed)
            params = replaced(params, load_parts(config.init_parts, self.abstract["params"]))
        self.state = init_state(
            self.task, self.tx, config.ema_decay, self.abstract, config.seed, params
        )

    def _report(self, pending: _Pending | None) -> None:
        """Waits for a step's metrics, stops the run if they are not finite, logs if it is time."""
        if pending is None:
            return
        step, metrics = pending.step, jax.device_get(pending.metrics)
        loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._not_finite(pending, loss, norm)
        self.instruments.seen(step, loss, pending.keys, pending.tokens)
        if step % self.config.log_every == 0 or step == self.config.steps:
            if pending.bad_records:
                metrics["bad_records"] = pending.bad_records
            self._log(step, metrics | self.instruments.read(pending.count))
        self.progress.update(step, loss)

    def _not_finite(self, pending: _Pending, loss: float, norm: float) -> None:
        path = self.workdir / "bad_batch.json"
        path.write_text(json.dumps({"step": pending.step, "keys": list(pending.keys)}))
        keys = ", ".join(pending.keys[:_SHOWN])
        more = len(pending.keys) - _SHOWN
        self.checkpoints.wait()
        latest = self.checkpoints.latest
        good = f"the last good checkpoint is of step {latest}" if latest else "no checkpoint yet"
        raise UserError(
            f"step {pending.step}: loss {loss:g}, gradient norm {norm:g}, on the batch {keys}"
            f"{f' and {more} more (all in {path})' if more > 0 else ''}; {good}: lower "
            "config.optimizer.learning_rate or look at these records"
        )

    def _evaluate(self, step: int, names: set[str], signals: Signals) -> None:
        """Runs evaluators; a signal breaks them off, and what has not logged then is still owed."""
        params = self.state.get("ema", self.state["params"])
        for name in sorted(names):
            began = time.monotonic()
            try:
                with signals.breaking_off():
                    values = self.evaluators[name].run(params)
            except BrokenOff:
                return
            self._log(step, {f"evals/{name}/{key}": value for key, value in values.items()})
            shown = "  ".join(f"{k} {float(v):.4g}" for k, v in list(values.items())[:_SHOWN])
            shown += f"  and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
            self.progress.say(f"step {step}  {name}: {shown}  ({time.monotonic() - began:.1f} s)")

    def _log(self, step: int, values: dict[str, Any]) -> None:
        self.log.write(step, values)
        metric = self.config.checkpoint.best_metric
        if metric in values:
            self.best[step] = float(values[metric])
        elif metric and metric.rpartition("/")[0] == next(iter(values), "").rpartition("/")[0]:
            raise UserError(
                f"config.checkpoint.best_metric={metric!r} is not among {', '.join(values)}: "
                "choose one of them"
            )

    def _saves(self, step: int) -> bool:
        every = self.config.checkpoint.every
        return step == self.config.steps or bool(every and step % every == 0)

    def _save(self, step: int) -> None:
        host = {
            "data": self.loader.state(),
            "tokenizer": runs.fingerprint(self.tokenizer),
            "spikes": self.instruments.guard.state(),
        }
        self.checkpoints.save_async(step, self.state, host, self.best)


@dataclass(frozen=True)
class _Pending:
    """A step that was handed to the devices and not looked at yet."""

    step: int
    metrics: dict[str, jax.Array]
    keys: Sequence[str]
    bad_records: int  # up to this step; the loader is further on when it is logged
    tokens: int
    count: Callable[[], flops.Flops]


def _due(config: ConfigDict, step: int) -> set[str]:
    """The evaluators whose turn it is at `step`."""
    return {
        name
        for name, section in config.evals.items()
        if step >= config.steps or (section.get("every", 0) and step % section.every == 0)
    }


def _evaluated(path: Path, step: int) -> set[str]:
    """The evaluators that have logged at `step` already."""
    lines = [line for line in read_metrics(path) if line["step"] == step]
    return {key.split("/")[1] for line in lines for key in line if key.startswith("evals/")}


def _latest_metrics(path: Path) -> dict[str, Any]:
    latest: dict[str, Any] = {}
    for line in read_metrics(path):
        latest.update(line)
    return latest


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or the code of `Interrupted` if a signal stopped it."""
    startup = Startup(process_age())
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m capjax.train",
        description="Train what a config describes. The same command goes on with a run that was "
        "interrupted, from its latest checkpoint.",
        epilog="Any field of the config can be overridden: --config.optimizer.learning_rate=3e-4 "
        "--config.steps=2000. Appending :runlocal to the config's path shrinks it to a few "
        "seconds on a laptop.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE.py[:ARG]",
        help="a config script, e.g. configs/guiding/scenes.py, with its argument after a colon",
    )
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="where the run is kept; created if missing"
    )
    process_flags.add(parser)
    args, overrides = parser.parse_known_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    config = config_lib.load(args.config, overrides)
    mesh_lib.enable_compile_cache()
    processes.start(args)
    startup.done("config")
    try:
        train(config, args.workdir, startup)
    except Interrupted as stop:
        command = shlex.join(["python", "-m", "capjax.train", *argv])
        print(f"saved step {stop.step} of {config.steps}; to go on: {command}", file=sys.stderr)
        return stop.exit_code
    return 0


if __name__ == "__main__":
    exit_cleanly(main)
