"""What watches over a run while it trains, in one place: speed, operations, traces, stalls, spikes.

    waiting()            context of the wait for input
    paused()             context of what is no training: no speed, no watch over stalls
    trace(step)          context of a step's dispatch
    seen(step, ...)      a step is done on the devices: its loss is known
    read(...)            what goes to the log beside a step's metrics

Raises `UserError` at a loss spike, where the config says stop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from capjax import flops, special_tokens
from capjax.errors import UserError
from capjax.logs import Clock
from capjax.spikes import Guard
from capjax.tracing import Tracing
from capjax.watchdog import Watchdog

SPIKES, PROFILE = "spikes.jsonl", "profile"
_SHOWN = 8  # keys in one line of the terminal


class Instruments:
    """Those that a config asks for; a context, which ends traces and the watch."""

    def __init__(self, config: ConfigDict, workdir: Path, model: Any, say: Callable[[str], None]):
        self._say = say
        self._special = special_tokens.of(model)
        self._clock = Clock(config.batch_size)
        self._tracing = Tracing(workdir / PROFILE, **config.profile)
        index = jax.process_index()
        # Not by `say`: of several processes, those that say nothing may be the ones that stall.
        self._watchdog = Watchdog(
            workdir / f"stalled-{index}.txt", config.watchdog.seconds, config.watchdog.exit
        )
        # Each process knows the keys of its own rows.
        spikes = workdir / (f"spikes-{index}.jsonl" if index else SPIKES)
        self.guard = Guard(spikes, **config.spikes)
        self._flops: flops.Flops | None = None

    def __enter__(self) -> Instruments:
        self._watchdog.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self._watchdog.__exit__()
        self._tracing.close()
        self.guard.close()

    def waiting(self) -> Any:
        return self._clock.waiting()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        with self._clock.paused(), self._watchdog.suspended():
            yield

    def trace(self, step: int) -> Any:
        return self._tracing.step(step)

    def tokens(self, batch: dict[str, Any]) -> int:
        """Of the batch over all processes, padding left out; counted here and taken as typical."""
        here = np.sum(self._special.until_end(batch["tokens"])) if "tokens" in batch else 0
        return int(here) * jax.process_count()

    def seen(self, step: int, loss: float, keys: Sequence[str], tokens: int) -> None:
        """Raises UserError for a loss spike, if a run is to stop at one."""
        self._clock.step_done(tokens)
        self._watchdog.beat()
        if self._tracing.done(step):
            self._say(f"step {step}: the profile is written")
        limit = self.guard.limit(step)
        if not self.guard.see(step, loss, keys):
            return
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        what = f"step {step}: loss {loss:.4g} is a spike (limit {limit:.4g})"
        where = f"on the batch {', '.join(keys[:_SHOWN])}{more} (all in {SPIKES})"
        if self.guard.action == "stop":
            raise UserError(
                f"{what}, {where}: look at these records, or start the run again with "
                "config.spikes.action=skip"
            )
        self._say(f"{what}{', its update is skipped' if self.guard.skips else ''}, {where}")

    def read(self, count: Callable[[], flops.Flops]) -> dict[str, float]:
        """Of the interval since the last call; `count` is called once, at its first end."""
        values = self._clock.read()
        if not values:
            return {}
        if self._flops is None:
            with self.paused():
                self._flops = count()
                self._say(str(self._flops))
        return values | self._flops.rates(values["step_seconds"]) | flops.device_memory()
