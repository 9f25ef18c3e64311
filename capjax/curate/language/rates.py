"""How often a server may be asked: a limit a minute, and the pause between attempts."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import Callable


class Rate:
    """At most `per_minute` of anything, spread evenly, with a second's worth at once.

    Whoever asks is given a place in time, in the order of asking, and sleeps until then. None: no
    limit.
    """

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic):
        self._spacing = 60.0 / per_minute if per_minute else 0.0
        self._clock, self._free = clock, 0.0

    def place(self, amount: float = 1.0) -> float:
        """Seconds to wait for this amount."""
        if not self._spacing:
            return 0.0
        now = self._clock()
        # A second that went unused may be used at once, and no more than that.
        place = max(self._free, now - 1.0)
        self._free = place + amount * self._spacing
        return max(place - now, 0.0)

    async def take(self, amount: float = 1.0) -> None:
        """Waits until this amount may be used."""
        wait = self.place(amount)
        if wait:
            await asyncio.sleep(wait)


def backoff(attempt: int, first: float, longest: float, draw: random.Random) -> float:
    """Seconds before attempt + 1: doubled each time, of which a random share, so that calls which
    failed together do not come back together. attempt counts from 0.
    """
    return draw.uniform(0.5, 1.0) * min(first * 2**attempt, longest)


def retry_after(header: str | None, longest: float = 600.0) -> float:
    """The seconds that a Retry-After header asks for, a number or a date; 0 for neither."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError):
            return 0.0
    return min(max(seconds, 0.0), longest) if seconds == seconds else 0.0
