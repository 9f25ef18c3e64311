"""Ranking and choosing: of several captions by their scores, of records by a score.

Raises `UserError` for a number that makes no sense; `BadRecord` for scores that are none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from capjax.curate.stage import Stage
from capjax.errors import BadRecord, UserError


def at_least(field: str, least: float, name: str = "") -> Stage:
    """Keeps records whose score reaches `least`, such as a CLIPScore; a score of None does not."""
    return Stage(
        name or f"{field} at least {least:g}",
        _AtLeast(field),
        {field: float},
        params={"least": least},
    )


class _AtLeast:
    def __init__(self, field: str):
        self.field = field

    def __call__(self, *, least: float, **fields: Any) -> Mapping | None:
        score = fields[self.field]
        return {} if score is not None and score >= least else None


def rank(
    candidates: str, scores: str, output: str, most: int | None = None, name: str = ""
) -> Stage:
    """The distinct captions with the best first, at most `most`, and their scores.

    Of equal scores the earlier one is first. Captions are the same if they differ in spaces alone;
    empty ones are left out. Gives `output` and `{output}_scores`.
    """
    if most is not None and most < 1:
        raise UserError(f"most={most} captions of {candidates!r} are none: give at least 1")
    return Stage(
        name or f"rank {candidates}",
        _Rank(candidates, scores, output),
        {"key": str, candidates: list[str], scores: list[float]},
        {output: list[str], f"{output}_scores": list[float]},
        params={"most": most},
    )


class _Rank:
    def __init__(self, candidates: str, scores: str, output: str):
        self.candidates, self.scores, self.output = candidates, scores, output

    def __call__(self, *, key: str, most: int | None, **fields: Any) -> Mapping:
        captions, scores = fields[self.candidates], fields[self.scores]
        if len(captions) != len(scores) or any(s is None or math.isnan(s) for s in scores):
            raise BadRecord(key, f"{len(captions)} captions have the scores {scores}")
        best: dict[str, float] = {}
        for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
            text = " ".join(captions[i].split())
            if text:
                best.setdefault(text, scores[i])
        if not best:
            raise BadRecord(key, "all of its captions are empty")
        chosen = list(best.items())[:most]
        return {
            self.output: [text for text, _ in chosen],
            f"{self.output}_scores": [score for _, score in chosen],
        }
