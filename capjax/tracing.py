"""Profiler traces of a range of steps: `config.profile = {"first_step": 50, "steps": 5}`.

Written to `DIR/profile`, to be opened with XProf, TensorBoard's profile plugin or Perfetto. Each
step is marked with its number. A run that goes on beyond the range traces nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax


class Tracing:
    """Begins and ends the trace at the right steps; with steps=0 it does nothing."""

    def __init__(self, directory: Path, first_step: int, steps: int):
        self._directory = directory
        self._range = range(first_step, first_step + steps)
        self._on = False

    def step(self, number: int) -> Any:
        """A context for the dispatch of step `number`; the first one begins the trace."""
        if self._range and number == self._range.start:
            jax.profiler.start_trace(str(self._directory))
            self._on = True
        return jax.profiler.StepTraceAnnotation("step", step_num=number)

    def done(self, number: int) -> bool:
        """Step `number` is done on the devices: ends the trace if it is the last; True if so."""
        return number >= self._range.stop - 1 and self.close()

    def close(self) -> bool:
        """Ends a trace that a stop or an error has left open; True if there was one."""
        was, self._on = self._on, False
        if was:
            jax.profiler.stop_trace()
        return was
