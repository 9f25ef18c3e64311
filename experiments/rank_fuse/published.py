"""The numbers of ranking and fusing (arXiv 2306.11593) that could be checked, as rows.

Second-hand, from a digest of the first version's text: no table of either version was readable, and
no study with people was made here, so that no row has a value of ours.
"""

from __future__ import annotations

from typing import NamedTuple


class Number(NamedTuple):
    """value: a percentage of the votes in the study with people, version 1."""

    system: str
    measure: str
    value: float


NUMBERS = (
    Number("fused caption", "votes for the best caption", 37.77),
    Number("next system", "votes for the best caption", 16.18),
)
