"""Where the time goes from the command to the first step, phase by phase."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Startup:
    """`done(phase)` ends a phase that began where the one before ended; one may come twice."""

    def __init__(self, age: float = 0.0):
        self._last = time.monotonic()
        self.phases: dict[str, float] = {"imports": age} if age else {}

    def done(self, phase: str) -> None:
        now = time.monotonic()
        self.phases[phase] = self.phases.get(phase, 0.0) + now - self._last
        self._last = now

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.phases.items())
        return f"first step after {sum(self.phases.values()):.1f} s: {parts}"


def process_age() -> float:
    """Seconds since this process began; 0 where the system does not say (no /proc)."""
    try:
        # The name of the program, in brackets, may itself hold spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return 0.0
    return max(up - int(fields[19]) / os.sysconf("SC_CLK_TCK"), 0.0)
