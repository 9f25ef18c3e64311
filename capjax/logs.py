"""What a run says while it trains: metrics as JSON lines, its speed, progress on the terminal.

`metrics.jsonl` holds one object a line: {"step": 100, "loss": 2.31, ...}. A step has one line for
training and one for each evaluator. Values that are not finite are written as null.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capjax.errors import UserError
from capjax.whole_file import whole_file

# What depends on the machine and its clock rather than on the config and its seed.
MEASURED = frozenset(
    {
        "step_seconds",
        "input_wait_seconds",
        "examples_per_second",
        "tokens_per_second",
        "model_flops_per_second",
        "program_flops_per_second",
        "mfu",
        "hfu",
        "device_bytes",
        "device_peak_bytes",
    }
)

_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


class MetricsLog:
    """Appends to a JSONL file; lines beyond `step`, left by a run that was killed, are dropped.

    `also` takes the same lines: objects with `write(step, values)` and `close()`.
    """

    def __init__(self, path: Path | str, step: int = 0, also: Sequence[Any] = ()):
        self.path, self._also = Path(path), also
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        # Replaced in one go: a second kill in between loses nothing either.
        with whole_file(self.path) as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        try:
            self._file = self.path.open("a")
        except OSError as error:
            raise UserError(f"cannot write {str(path)!r}: {error.strerror}") from error

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One line, flushed at once: whoever watches the file sees it."""
        line = {"step": step} | {name: _plain(value) for name, value in values.items()}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write {str(self.path)!r} at step {step}: {error.strerror}; the "
                "checkpoints are intact; make room and start the run again"
            ) from error
        for other in self._also:
            other.write(step, values)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it has been told by `write`
            self._file.close()
        for other in self._also:
            other.close()


@dataclass(frozen=True)
class Unwritten:
    """Stands for the log at `path` in a process other than the one that writes it."""

    path: Path

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Process 0 has the same values and writes them."""

    def close(self) -> None:
        """There is nothing to close."""


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """All complete lines of a metrics file; none if there is no file."""
    path = Path(path)
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue  # the last line of a run that was killed while writing it
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


class Progress:
    """Steps done, loss, steps/s and time left: a bar on a terminal, else a line now and then."""

    def __init__(self, total: int, start: int = 0, stream: Any = None):
        self._stream = stream or sys.stderr
        self._total, self._start = total, start
        self._began = self._printed = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=start, unit="step", dynamic_ncols=True, file=self._stream
            )

    def update(self, step: int, loss: float) -> None:
        """Shows that `step` steps are done."""
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._printed < _LINE_SECONDS and step != self._total:
            return
        self._printed = now
        rate = (step - self._start) / max(now - self._began, 1e-9)
        left = _clock((self._total - step) / max(rate, 1e-9))
        self.say(f"step {step}/{self._total}  loss {loss:.4g}  {rate:.3g} steps/s  {left} left")

    def say(self, text: str) -> None:
        """A line of its own, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@dataclass
class Clock:
    """Rates since the last reading; compilation (the first step) and pauses do not count."""

    batch_size: int
    steps: int = 0
    tokens: int = 0
    waited: float = 0.0
    excluded: float = 0.0
    began: float | None = None

    def step_done(self, tokens: int = 0) -> None:
        """One more step, of so many tokens; the first one starts the clock."""
        if self.began is None:
            self.began, self.waited, self.excluded = time.monotonic(), 0.0, 0.0
        else:
            self.steps += 1
            self.tokens += tokens

    def read(self) -> dict[str, float]:
        """Seconds a step, of them waiting for input, examples/s and, where there are, tokens/s.

        Starts a new interval.
        """
        if self.began is None or not self.steps:
            return {}
        now = time.monotonic()
        seconds = max(now - self.began - self.excluded, 1e-9)
        steps, tokens, waited = self.steps, self.tokens, self.waited
        self.began, self.steps, self.tokens = now, 0, 0
        self.waited = self.excluded = 0.0
        return {
            "step_seconds": seconds / steps,
            "input_wait_seconds": waited / steps,
            "examples_per_second": steps * self.batch_size / seconds,
            **({"tokens_per_second": tokens / seconds} if tokens else {}),
        }

    def waiting(self) -> _Timed:
        """A context whose time is the wait for input."""
        return _Timed(self, "waited")

    def paused(self) -> _Timed:
        """A context whose time is not training."""
        return _Timed(self, "excluded")


class _Timed:
    def __init__(self, clock: Clock, name: str):
        self._clock, self._name = clock, name

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: Any) -> None:
        spent = time.monotonic() - self._began
        setattr(self._clock, self._name, getattr(self._clock, self._name) + spent)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _plain(value: Any) -> Any:
    """A JSON value for a scalar, whichever library it comes from."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
