"""The numbers of CapsFusion (arXiv 2310.20550) that could be checked, as rows.

CIDEr is as printed, 100 times the natural scale. The tables themselves were not at hand: these are
quoted in the abstract or on the page that is named, and every other cell is unverified. No run of
the paper's size was made here, so that no row has a value of ours.
"""

from __future__ import annotations

from typing import NamedTuple


class Number(NamedTuple):
    """captions: those that the captioner was trained on; pairs: how many, None where not told."""

    captions: str
    pairs: int | None
    measure: str
    value: float
    where: str


NUMBERS = (
    Number("synthetic", 10_000_000, "COCO CIDEr", 102.5, "p. 8"),
    Number("synthetic", 100_000_000, "COCO CIDEr", 96.93, "p. 8"),
    Number("fused", None, "COCO CIDEr above the best other captions", 18.8, "abstract, p. 3"),
    Number("fused", None, "NoCaps CIDEr above the best other captions", 18.3, "abstract, p. 3"),
    Number("fused", None, "times less computation for an equal score, at least", 11, "p. 3"),
    Number("fused", None, "times less computation for an equal score, at most", 16, "p. 3"),
)
