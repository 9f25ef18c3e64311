"""A watchdog against stalls: no step for N seconds, and it writes down where every thread stands.

A collective that waits for a lost host, a file system that hangs or a deadlocked loader give no
error: the run merely stops moving. The stacks of all threads go to `DIR/stalled-<process>.txt`;
with `exit_too` the process then ends with the code on which a scheduler restarts a run, which goes
on from its last checkpoint.

It watches from the first beat on, so compilation does not count, and not inside `suspended`, where
evaluators run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from capjax.signals import RESTART


def _to_stderr(text: str) -> None:
    print(f"\n{text}", file=sys.stderr, flush=True)


class Watchdog:
    """A context; `beat()` after each step. With seconds=0 it does nothing."""

    def __init__(
        self,
        path: Path,
        seconds: float,
        exit_too: bool = False,
        say: Callable[[str], None] = _to_stderr,
        leave: Callable[[int], None] = os._exit,  # a stalled thread would hold `sys.exit` up
    ):
        self._path, self._seconds, self._exit_too = path, seconds, exit_too
        self._say, self._leave = say, leave
        self._last: float | None = None  # no watch while there is none
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def beat(self) -> None:
        """A step is done."""
        self._last = time.monotonic()

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Inside, nothing is expected to move."""
        watched, self._last = self._last is not None, None
        try:
            yield
        finally:
            if watched:
                self.beat()

    def _watch(self) -> None:
        told = None
        while not self._ended.wait(min(1.0, self._seconds / 4)):
            last = self._last
            if last is None or last == told or time.monotonic() - last < self._seconds:
                continue
            told = last  # once a stall
            where = self._dump(time.monotonic() - last)
            then = f"; exiting with code {RESTART}" if self._exit_too else ""
            self._say(f"no step for {self._seconds:g} seconds: {where}{then}")
            if self._exit_too:
                self._leave(RESTART)

    def _dump(self, seconds: float) -> str:
        try:
            with self._path.open("a") as file:
                file.write(f"{time.strftime('%F %T')}  no step for {seconds:.0f} seconds\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
                file.write("\n")
        except OSError as error:
            return f"the stacks cannot be written to {str(self._path)!r} ({error.strerror})"
        return f"where each thread stands is in {str(self._path)!r}"
