"""Random draws that are cheap to start, and the same on every machine and library version.

A program of draws takes a `chooser`. `Draws` answers at random from a counter hashed with
SplitMix64 (Steele, Lea and Flood, 2014: "Fast splittable pseudorandom number generators"), in
plain Python integers, so that a record costs no generator object and no numpy release can change
it. `distribution` instead runs the same program down every path and returns the exact probability
of every outcome: what is sampled and what is enumerated cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")
Outcome = TypeVar("Outcome", bound=Hashable)

_WORD = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_SCALE = 2.0**-53


class Chooser(Protocol):
    """Answers the choices that a program asks for."""

    def below(self, n: int) -> int:
        """An integer in 0..n-1, each as likely."""

    def chance(self, p: float) -> bool:
        """True with probability p."""

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, each as likely."""

    def weighted(self, weights: Sequence[float]) -> int:
        """A position, as likely as its weight; the weights sum to 1."""


def mix64(z: int) -> int:
    """A bijection of 64-bit integers that scatters neighbours (SplitMix64's finaliser)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)


class Draws:
    """A stream of random choices that starts at `state` (64 bits)."""

    __slots__ = ("_state",)

    def __init__(self, state: int):
        self._state = state

    def bits(self) -> int:
        """64 random bits."""
        self._state = z = (self._state + _GAMMA) & _WORD
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
        return z ^ (z >> 31)

    def uniform(self) -> float:
        """A float in [0, 1)."""
        return (self.bits() >> 11) * _SCALE

    def below(self, n: int) -> int:
        return (self.bits() * n) >> 64

    def chance(self, p: float) -> bool:
        return self.uniform() < p

    def pick(self, options: Sequence[T]) -> T:
        return options[(self.bits() * len(options)) >> 64]

    def weighted(self, weights: Sequence[float]) -> int:
        left = self.uniform()
        for at, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return at
        # Rounding may leave a sliver: it goes to the last option that can occur at all.
        return max(at for at, weight in enumerate(weights) if weight > 0)


class _Path:
    """Follows `prefix`, then always the first possible option; notes what else was possible."""

    def __init__(self, prefix: tuple[int, ...]):
        self._prefix = prefix
        self.taken: list[int] = []
        self.options: list[list[int]] = []
        self.probability = 1.0

    def _take(self, weights: Sequence[float]) -> int:
        depth = len(self.taken)
        if depth < len(self._prefix):
            choice = self._prefix[depth]
        else:
            choice = next(at for at, weight in enumerate(weights) if weight > 0)
        self.taken.append(choice)
        self.options.append([at for at, w in enumerate(weights) if w > 0 and at > choice])
        self.probability *= weights[choice]
        return choice

    def below(self, n: int) -> int:
        return self._take([1.0 / n] * n)

    def chance(self, p: float) -> bool:
        return self._take([p, 1.0 - p]) == 0

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def weighted(self, weights: Sequence[float]) -> int:
        return self._take(weights)


def distribution(
    program: Callable[[Chooser], Outcome], max_paths: int
) -> dict[Outcome, float] | None:
    """The exact distribution of what `program(chooser)` returns; None beyond `max_paths` paths."""
    result: dict[Outcome, float] = {}
    waiting: list[tuple[int, ...]] = [()]
    paths = 0
    while waiting:
        paths += 1
        if paths > max_paths:
            return None
        prefix = waiting.pop()
        path = _Path(prefix)
        outcome = program(path)
        result[outcome] = result.get(outcome, 0.0) + path.probability
        for depth in range(len(prefix), len(path.taken)):
            head = tuple(path.taken[:depth])
            waiting.extend((*head, other) for other in path.options[depth])
    return result
