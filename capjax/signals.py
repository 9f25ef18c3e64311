"""What stops a run from outside: Ctrl-C, SIGTERM, and a notice that the machine is taken away.

The step in progress is finished and saved first; evaluators that it breaks off run again when the
run goes on. Schedulers give notice by SIGTERM (SLURM, Kubernetes and with it GKE, Cloud TPU).

Several processes must stop at the same step, but a notice may come to one of them alone. There the
signal belongs to JAX's preemption service, which lets all of them agree on a step
(`multihost_utils.reached_preemption_sync_point`); evaluators are then not broken off, since a
process that left one would leave the others waiting in a collective.

Exit codes of a training run: 0 it is finished, 2 the user's mistake (starting it again does not
help), 130 Ctrl-C, and `RESTART`: saved and wanting to be started again.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import jax

RESTART = 75  # EX_TEMPFAIL of sysexits.h: a temporary failure, to be tried again


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run after `step`, which is saved.

    A KeyboardInterrupt, so that a program which trains several models one after the other stops.
    """

    def __init__(self, step: int, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.step, self.number = step, number

    @property
    def exit_code(self) -> int:
        """`RESTART`, unless it was a person who stopped it."""
        return 128 + self.number if self.number == signal.SIGINT else RESTART


class BrokenOff(BaseException):
    """A signal came inside `Signals.breaking_off`; no Exception, so that nothing swallows it."""


class Signals:
    """A context that notes SIGINT and SIGTERM in `received` instead of dying of them.

    A second SIGINT does end the process. Outside the main thread, and among several processes, it
    notes nothing.
    """

    def __init__(self):
        self.received = 0
        self._before: dict[int, Any] = {}
        self._breaks_off = False

    def __enter__(self) -> Signals:
        if jax.process_count() > 1:
            return self  # JAX's own handler of SIGTERM must stay
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:
            self._before = {}  # Python allows handlers in the main thread alone
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def at(self, step: int) -> int:
        """The signal for which to stop after `step`, or 0; the same in all processes."""
        if not self.received and jax.process_count() > 1:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(step):
                self.received = signal.SIGTERM
        return self.received

    @contextlib.contextmanager
    def breaking_off(self) -> Iterator[None]:
        """A signal inside raises `BrokenOff`: for long work that can be done again later."""
        self._breaks_off = True
        try:
            if self.received:
                raise BrokenOff
            yield
        finally:
            self._breaks_off = False

    def _note(self, number: int, _frame: Any) -> None:
        self.received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not `print`: the handler may have interrupted a write to the same stream.
        os.write(2, b"\nfinishing this step, then saving (Ctrl-C again: stop at once)\n")
        if self._breaks_off:
            self._breaks_off = False
            raise BrokenOff
