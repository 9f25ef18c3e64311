"""What captions of scenes score, and how far a way of decoding stands above the greedy curve.

Agreement is CIDEr. Specificity is the oracle's R@1: the chance to pick the picture among all, by
what the caption says of it. Settings of a move are compared on some pictures, and the best of them
is judged on others.

Letters: N pictures, G scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from capjax.data.scenes.parse import posterior
from capjax.metrics import References, evaluate, frontier
from capjax.metrics.bootstrap import Interval
from capjax.metrics.lengths import lengths
from experiments.guiding import moves
from experiments.guiding.moves import Space


class Pictures:
    """Records of scenes; `measure` gives what captions [N] of them score, each array [N]."""

    def __init__(self, records: Sequence[dict[str, Any]], space: Space):
        self.space = space
        self.count = len(records)
        self._graphs = [record["graph"] for record in records]
        self._keys = [record["key"] for record in records]
        references = {record["key"]: record["captions"] for record in records}
        self._references = References.from_captions(references)
        self._chances: dict[str, np.ndarray] = {}  # settings share many captions

    def measure(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """cider; of the oracle recall_at_1, and whether the caption is true of its picture; the
        cosine in the pretrained captioner's space."""
        for caption in set(captions) - self._chances.keys():
            self._chances[caption] = posterior(caption, self._graphs)
        candidates = dict(zip(self._keys, captions, strict=True))
        scores = evaluate(candidates, self._references, metrics=("cider",))
        chances = np.array([self._chances[c][i] for i, c in enumerate(captions)])
        return {
            "cider": scores.measures["cider"].per_image,
            "recall_at_1": chances,
            "true": (chances > 0).astype(float),
            "own_cosine": self.space.cosines(captions),
        }


class Trial:
    """Settings beside the greedy curve, on the pictures to choose on and on those to judge on."""

    def __init__(self, chosen: Pictures, judged: Pictures, greedy: Sequence[moves.Setting]):
        self._parts = {"chosen": chosen, "judged": judged}
        self._first = chosen.count
        self.curve = {part: self._pairs(part, greedy) for part in self._parts}

    def measure(self, part: str, setting: moves.Setting) -> dict[str, np.ndarray]:
        """What a setting's captions score on one part of the pictures."""
        here = slice(None, self._first) if part == "chosen" else slice(self._first, None)
        return self._parts[part].measure(setting.captions[here])

    def excess(self, part: str, setting: moves.Setting) -> Interval:
        """Above the greedy curve, with its interval."""
        return frontier.excess(self.curve[part], self._pairs(part, [setting])[0])

    def row(self, setting: moves.Setting) -> dict[str, Any]:
        """What is told of a setting, all measured on the pictures to judge on."""
        found = {k: float(v.mean()) for k, v in self.measure("judged", setting).items()}
        here = setting.captions[self._first :]
        above = self.excess("judged", setting)
        return {
            "name": setting.label,
            **found,
            "words": lengths(here)["words"],
            "distinct_captions": float(len(set(here))),
            "excess": above.value,
            "low": above.low,
            "high": above.high,
        }

    def best(self, settings: Sequence[moves.Setting]) -> moves.Setting:
        """The one with the largest excess on the pictures to choose on."""
        return max(settings, key=lambda setting: self.excess("chosen", setting).value)

    def _pairs(self, part: str, settings: Sequence[moves.Setting]) -> np.ndarray:
        """[G,2,N]: agreement and specificity."""
        measured = [self.measure(part, setting) for setting in settings]
        return np.array([[m["cider"], m["recall_at_1"]] for m in measured])
