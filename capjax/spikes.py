"""The guard against loss spikes: a loss far above its recent ones, by median and MAD.

A loss counts as a spike if it exceeds the median of the last `window` losses by more than
`deviations` times their scaled median absolute deviation (1.4826 MAD estimates the standard
deviation of normal noise; Leys et al. 2013). Spikes enter the window as well: the median bears a
few, and where the loss has risen for good, the limit follows. What happens at a spike:

    log    the step and the keys of its batch go to `DIR/spikes.jsonl`
    skip   that, and the update is not made: parameters, optimiser and average stay as they were
    stop   that, and the run stops; the checkpoint before is the last one

The limit of step n is made of the losses up to step n - 2: while the devices work on a step, the
loss of the one before is not known yet. It depends on nothing else, so a resumed run has the limits
of an undisturbed one; `state()` is what a checkpoint keeps for that.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from capjax.logs import MetricsLog

_SCALE = 1.4826  # of a MAD to a standard deviation
_FLOOR = 1e-3  # of the median: a loss that hardly moves has a MAD of nearly zero


class Guard:
    """The losses of one run, step by step. With window=0 it lets everything pass."""

    def __init__(self, path: Path, window: int, deviations: float, action: str):
        self.action = action
        self._path, self._window, self._deviations = path, window, deviations
        self._losses: deque[float] = deque(maxlen=max(window, 1))
        self._limits: dict[int, float] = {}
        self._log: MetricsLog | None = None

    @property
    def skips(self) -> bool:
        """Whether updates may have to be left out."""
        return self._window > 0 and self.action == "skip"

    def limit(self, step: int) -> float:
        """The highest loss that is no spike at `step`; infinity while too few are known."""
        return self._limits.get(step, math.inf)

    def see(self, step: int, loss: float, keys: Sequence[str]) -> bool:
        """Takes note of the loss of `step`; True, and a line in the file, if it is a spike."""
        if not self._window:
            return False
        limit = self._limits.pop(step, math.inf)
        spike = loss > limit
        if spike:
            if self._log is None:
                # Without what was seen from here on before the run was killed.
                self._log = MetricsLog(self._path, step - 1)
            self._log.write(step, {"loss": loss, "limit": limit, "keys": list(keys)})
        self._losses.append(loss)
        if len(self._losses) == self._window:
            middle = statistics.median(self._losses)
            spread = _SCALE * statistics.median(abs(x - middle) for x in self._losses)
            spread = max(spread, _FLOOR * abs(middle))
            self._limits[step + 2] = middle + self._deviations * spread
        return spike

    def state(self) -> dict[str, Any]:
        """The window and the limits of the next two steps, as JSON."""
        return {"losses": list(self._losses), "limits": list(self._limits.items())}

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to where `state()` was taken; a window of another length starts with its end."""
        self._losses.extend(state["losses"])
        self._limits = {int(step): limit for step, limit in state["limits"]}


def skipping(step: Callable, abstract: dict[str, Any]) -> Callable:
    """`step` with a third argument, the limit: beyond it, the state stays but for its number.

    The metric `skipped` is 1 where that happened. The optimiser's own counters stay too.
    """

    def guarded(state: Any, batch: Any, limit: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        new, metrics = step(state, batch)
        passes = metrics["loss"] <= limit
        kept = jax.tree.map(lambda after, before: jnp.where(passes, after, before), new, state)
        skipped = 1.0 - passes.astype(jnp.float32)
        return kept | {"step": new["step"]}, metrics | {"skipped": skipped}

    shardings = jax.tree.map(lambda s: s.sharding, abstract)
    return jax.jit(guarded, donate_argnums=0, out_shardings=(shardings, None))
