"""How far a pipeline is: records, time left, calls, tokens and cost; a bar, or lines."""

from __future__ import annotations

import sys

from tqdm import tqdm

from capjax.curate.cache import Paid

_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


class Progress:
    """A bar of `total` records of which `done` were there before."""

    def __init__(self, total: int, done: int, name: str, shown: bool):
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=name,
            unit=" records",
            unit_scale=True,
            mininterval=0.2 if sys.stderr.isatty() else _LINE_SECONDS,
            disable=not shown,
        )

    def add(self, records: int, paid: Paid) -> None:
        """More records are done, and this is what was paid in all."""
        if paid.calls:
            told = f"{paid.calls:,} calls, {paid.tokens:,} tokens, cost {paid.cost:.2f}"
            self._bar.set_postfix_str(told, refresh=False)
        self._bar.update(records)

    def close(self) -> None:
        self._bar.close()
