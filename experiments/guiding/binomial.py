"""Table B.3's analysis: is one of two captions preferred? The exact two-sided binomial test.

Each answer prefers one caption or neither. Those that prefer neither are left out; of the n others
k prefer the first, and under the null hypothesis k is binomial with p = 1/2. The p-value is the
chance of a split at least as uneven, in either direction.

Published percentages have one decimal, so that k and n are known to within a few answers:
`published` gives the p-value of the rounded counts and its range over all counts that round to the
same.

Raises `UserError` for counts that cannot be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from capjax.errors import UserError

PREFERENCES = ("first", "second", "neither")


def p_value(first: int, second: int) -> float:
    """Two-sided p-value that `first` and `second` answers come from a fair coin, in (0, 1]."""
    if first < 0 or second < 0 or first + second == 0:
        raise UserError(
            f"the test needs answers that prefer one caption, not {first} and {second}: give "
            "counts of at least 0, not both 0"
        )
    n, few = first + second, min(first, second)
    # Logarithms, because for thousands of answers the terms are below the smallest float.
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        for k in range(few + 1)
    ]
    largest = max(logs)
    one_side = math.exp(largest) * math.fsum(math.exp(term - largest) for term in logs)
    return min(1.0, 2 * one_side)


def test(answers: Iterable[str]) -> dict[str, Any]:
    """Counts, percentages and the p-value of answers "first", "second" and "neither"."""
    counts = dict.fromkeys(PREFERENCES, 0)
    for number, answer in enumerate(answers, start=1):
        if answer not in counts:
            raise UserError(
                f"answer {number} is {answer!r}: it must be one of {', '.join(PREFERENCES)}"
            )
        counts[answer] += 1
    total = sum(counts.values())
    if not total:
        raise UserError("there are no answers to test: give at least one")
    return {
        "answers": total,
        **counts,
        "percent": [round(100 * counts[name] / total, 1) for name in PREFERENCES],
        "p_value": p_value(counts["first"], counts["second"]),
    }


def published(percent: Sequence[float], answers: int) -> dict[str, float]:
    """The p-value behind published percentages of `answers` answers, and its lowest and highest
    over the counts that round to them."""
    first, second = (round(share * answers / 100) for share in percent[:2])
    options = [
        p_value(a, b)
        for a in _rounding_to(percent[0], answers)
        for b in _rounding_to(percent[1], answers)
        if a + b <= answers
    ]
    return {
        "first": first,
        "second": second,
        "p_value": p_value(first, second),
        "lowest": min(options),
        "highest": max(options),
    }


def _rounding_to(percent: float, answers: int) -> range:
    """The counts whose share of `answers` is printed as `percent`."""
    low, high = (math.ceil((percent - 0.05) * answers / 100), (percent + 0.05) * answers / 100)
    return range(max(0, low), math.floor(high) + 1)
