"""Which checkpoints stay: the last ones, and the best by a metric.

A pure function of what is on disk and of what was logged, so that a run which was killed between
two of its deletions comes to the same decision when it goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Policy:
    """`last` checkpoints, and besides them the `best` ones by a metric; both may be the same.

    `values` is the metric by step; a step without a finite value is never among the best. Of equal
    values the later step is the better one.
    """

    last: int = 1
    best: int = 0
    lower_is_better: bool = False
    values: Mapping[int, float] = field(default_factory=dict)

    def kept(self, steps: Iterable[int]) -> set[int]:
        """Those of `steps` that stay."""
        steps = sorted(steps)
        measured = [step for step in steps if math.isfinite(self.values.get(step, math.nan))]
        sign = -1 if self.lower_is_better else 1
        measured.sort(key=lambda step: (sign * self.values[step], step))
        return {*steps[-self.last :], *(measured[-self.best :] if self.best else ())}
