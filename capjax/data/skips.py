"""How many bad records a run may leave out before it stops.

Large data sets hold a few records that cannot be used. Each is logged once with its key and left
out; when the distinct bad keys exceed the configured fraction of the data set, the run stops with
one `UserError`, since training on what is left would no longer be training on the data asked for.
"""

from __future__ import annotations

import logging
import math
import threading

from capjax.errors import UserError

log = logging.getLogger(__name__)


class SkipBudget:
    """Counts unusable records of a data set of `total` records; safe to share between threads.

    A record that turns up again in a later epoch counts once. One budget belongs to one process:
    it holds a lock and therefore refuses to be pickled, instead of counting apart in every worker.

    Raises `UserError` where `max_fraction` is not in [0, 1].
    """

    def __init__(self, total: int, max_fraction: float = 0.0):
        if not 0.0 <= max_fraction <= 1.0:
            raise UserError(f"max_bad_fraction={max_fraction} is not between 0 and 1")
        self.total = total
        self.max_fraction = max_fraction
        # The tolerance keeps 0.29 * 100 = 28.999... from forbidding the 29th record.
        self._allowed = math.floor(max_fraction * total + 1e-9)
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many distinct records were left out."""
        return len(self._reasons)

    @property
    def keys(self) -> tuple[str, ...]:
        """Their keys, in the order in which they turned up."""
        with self._lock:
            return tuple(self._reasons)

    def skip(self, key: str, reason: str) -> None:
        """Leaves out record `key`; raises `UserError` once that is one record too many."""
        with self._lock:
            known = key in self._reasons
            if not known:
                self._reasons[key] = reason
            count = len(self._reasons)
            first_key, first_reason = next(iter(self._reasons.items()))
        if not known:
            log.warning("record %r left out: %s", key, reason)
        if count > self._allowed:
            raise UserError(
                f"{count:,} of {self.total:,} records could not be used (first: {first_key!r}: "
                f"{first_reason}), more than max_bad_fraction={self.max_fraction:g} allows; "
                "repair them or raise it"
            )
