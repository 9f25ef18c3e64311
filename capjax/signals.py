"""Ctrl-C and SIGTERM during training: the step in progress is finished and saved first."""

from __future__ import annotations

import os
import signal
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run after `step`, which is saved.

    A KeyboardInterrupt, so that a program which trains several models one after the other stops.
    """

    def __init__(self, step: int, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.step, self.number = step, number


class Signals:
    """A context that notes SIGINT and SIGTERM in `received` instead of dying of them.

    A second SIGINT does end the process. Outside the main thread it notes nothing.
    """

    def __init__(self):
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:
            self._before = {}  # Python allows handlers in the main thread alone
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: Any) -> None:
        self.received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not `print`: the handler may have interrupted a write to the same stream.
        os.write(2, b"\nfinishing this step, then saving (Ctrl-C again: stop at once)\n")
