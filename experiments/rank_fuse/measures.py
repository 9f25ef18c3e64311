"""What is measured of captions of the small world: true and false facts, and how varied they are.

Letters: N pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from capjax.curate.stages.choosing import rank
from capjax.errors import UserError
from capjax.metrics.bootstrap import mean_difference
from capjax.metrics.diversity import diversity
from capjax.metrics.ptb import tokenize
from capjax.metrics.self_bleu import self_bleu
from experiments.rank_fuse.worlds import FACTS, Source


class Facts(NamedTuple):
    """True and false facts of a caption for each picture, [N] each."""

    true: np.ndarray
    false: np.ndarray

    @property
    def rate(self) -> float:
        """The share of false facts among all."""
        return float(self.false.sum() / max(1, (self.true + self.false).sum()))

    @property
    def rates(self) -> np.ndarray:
        """The same for each picture; 0 where nothing is told."""
        return self.false / np.maximum(1, self.true + self.false)


def facts_of(captions: Sequence[str], world: Source) -> Facts:
    """Against the truth of the world's first N pictures."""
    pairs = [(FACTS(text), world.truth(i)) for i, text in enumerate(captions)]
    return Facts(
        np.array([len(own & truth) for own, truth in pairs]),
        np.array([len(own - truth) for own, truth in pairs]),
    )


def joint(groups: Sequence[Sequence[str]], world: Source) -> Facts:
    """Of a group of captions for each picture, each fact as often as it is told."""
    most = max(map(len, groups))
    told = [
        facts_of([group[k] if k < len(group) else "" for group in groups], world)
        for k in range(most)
    ]
    return Facts(sum(f.true for f in told), sum(f.false for f in told))


def best_two(captions: Sequence[str], scores: Sequence[float]) -> list[str]:
    """The pipeline's own rule."""
    chosen = rank("c", "s", "r", most=2)({"key": "", "c": list(captions), "s": list(scores)})
    return chosen["r"]


def difference(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """The mean difference of [N], with its interval over pictures."""
    found = mean_difference(first.astype(float), second.astype(float))
    return {"difference": found.value, "low": found.low, "high": found.high}


def varied(systems: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """mBLEU-4, distinct-1 and distinct-2 of each system's captions, which must be as many."""
    sizes = {name: len(captions) for name, captions in systems.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{size} of {name}" for name, size in sizes.items())
        raise UserError(f"diversity depends on the number of captions, and there are {told}")
    found: dict[str, dict[str, Any]] = {}
    for name, captions in systems.items():
        tokens = [tokenize(text) for text in captions]
        own = diversity([[one] for one in tokens])
        found[name] = {
            "mbleu_4": self_bleu([tokens])["self_bleu_4"].value,
            "distinct_1": own["distinct_1"].value,
            "distinct_2": own["distinct_2"].value,
        }
    return found
