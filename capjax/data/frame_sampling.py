"""Which moments of a clip a model sees: rules that give T times, exact and free of rounding.

    uniform   the middle of each of T equal parts of the clip: (i + 1/2) D / T. These are the test
              frames of Temporal Segment Networks (Wang et al. 2016, arXiv:1608.00859, section 3)
              and of most video encoders since.
    first     the first T frames, whatever their times
    fps:R     i / R seconds from the beginning of the clip, R frames a second: fps:2, fps:0.5,
              fps:30000/1001

At a moment a clip shows the last frame that began before it or at it, so a variable frame rate is
nothing special. T: frames asked for. D: length of the clip. Times are `Fraction`s of a second
from the beginning of the clip.
Raises `UserError` for an unknown rule or frames < 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from capjax.errors import UserError

MAX_FRAMES = 4096


@dataclass(frozen=True)
class Sampling:
    """A rule for a number of frames; `rate` is frames a second, of the rule fps."""

    kind: str
    frames: int
    rate: Fraction | None = None

    def times(self, length: Fraction) -> list[Fraction] | None:
        """The T moments of a clip of this length; None for "first", which counts frames instead.

        With fps, moments behind the end are left out: the clip is too short for T of them.
        """
        if self.kind == "uniform":
            return [length * Fraction(2 * i + 1, 2 * self.frames) for i in range(self.frames)]
        if self.kind == "fps":
            return [time for i in range(self.frames) if (time := i / self.rate) < length]
        return None


def sampling(rule: str, frames: int) -> Sampling:
    """The rule of this name for T = `frames` frames."""
    if not isinstance(frames, int) or not 1 <= frames <= MAX_FRAMES:
        raise UserError(f"frames={frames!r} must be an integer from 1 to {MAX_FRAMES:,}")
    if rule in ("uniform", "first"):
        return Sampling(rule, frames)
    kind, _, rate = str(rule).partition(":")
    try:
        per_second = Fraction(rate) if kind == "fps" else None
    except (ValueError, ZeroDivisionError):
        per_second = None
    if per_second is None or per_second <= 0:
        raise UserError(
            f"unknown rule {rule!r} for choosing frames; choose uniform, first, or fps:2 for two "
            "frames a second"
        )
    return Sampling("fps", frames, per_second)
