"""What captions score: agreement with references, and fit to their pictures for several judges.

A judge is a space of pictures and texts: CLIP ViT-B/32 in the paper's tables, CoCa-2B and the
captioner's own CoCa in its Table B.4. The first judge's columns are plain (`recall_at_1`), those of
another one begin with its name (`own_recall_at_1`).

The human-caption line of the paper's figures is `human`: of each picture every caption in turn is
the candidate and the others are its references. It is measured with one reference less than
captions of a model are, which costs it some CIDEr.

Letters: N pictures, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capjax.errors import UserError
from capjax.evals.encoder import Encoder
from capjax.metrics import References, evaluate
from capjax.metrics.bootstrap import measure_interval
from capjax.metrics.clipscore import (
    clip_score,
    harmonic_mean,
    image_caption_cosine,
    ref_only_clip_score,
)
from capjax.metrics.lengths import lengths
from capjax.metrics.measure import Measure, mean_of
from capjax.metrics.retrieval import ranks, recall_from_ranks

AGREEMENT = ("bleu", "rouge_l", "cider")
RECALLS = (1, 5, 10)
INTERVALS = ("cider", "clipscore", "recall_at_1")


class Judge:
    """An encoder that has seen the pictures [N]; `prefix` precedes every text."""

    def __init__(self, encoder: Encoder, images: np.ndarray, prefix: str = ""):
        self.encoder, self.images, self.prefix = encoder, images, prefix
        self._known: dict[str, np.ndarray] = {}  # references come back with every setting

    def score(self, texts: Sequence[str], references: Sequence[Sequence[str]]):
        """({metric: value}, {metric: [N]}) of one caption a picture."""
        embedded = self._embed(texts)
        ends = np.cumsum([len(own) for own in references])
        others = np.split(self._embed([text for own in references for text in own]), ends[:-1])
        clip, ref_only = clip_score(self.images, embedded), ref_only_clip_score(embedded, others)
        found = ranks(embedded, self.images, np.arange(len(texts)))
        per_picture = {
            "cosine": image_caption_cosine(self.images, embedded),
            "clipscore": clip,
            "ref_only_clipscore": ref_only,
            "ref_clipscore": harmonic_mean(clip, ref_only),
            **{f"recall_at_{k}": (found <= k).astype(float) for k in RECALLS},
        }
        values = {name: float(np.mean(value)) for name, value in per_picture.items()}
        values |= {f"recall_at_{k}": v for k, v in recall_from_ranks(found, RECALLS).items()}
        return values, per_picture

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        new = sorted(set(texts) - self._known.keys())
        if new:
            embedded = self.encoder.texts([self.prefix + text for text in new])
            self._known |= dict(zip(new, embedded, strict=True))
        return np.stack([self._known[text] for text in texts])


def measured(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    judges: Mapping[str, Judge],
    metrics: Sequence[str] = AGREEMENT,
) -> tuple[dict[str, float], dict[str, Measure]]:
    """(every metric's value, those that are functions of the pictures as such) of one setting."""
    keys = range(len(captions))
    counted = References.from_captions(dict(zip(keys, references, strict=True)))
    scores = evaluate(dict(zip(keys, captions, strict=True)), counted, metrics)
    row, measures = dict(scores.metrics), dict(scores.measures)
    for number, (name, judge) in enumerate(judges.items()):
        prefix = f"{name}_" if number else ""
        values, each = judge.score(captions, references)
        row |= {prefix + metric: value for metric, value in values.items()}
        measures |= {prefix + metric: mean_of(value) for metric, value in each.items()}
    row |= lengths(captions)
    row["distinct_captions"] = float(len(set(captions)))
    return row, measures


def score(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    judges: Mapping[str, Judge],
    metrics: Sequence[str] = AGREEMENT,
) -> dict[str, Any]:
    """One row: every metric, the lengths, and 95% bootstrap intervals of some."""
    row, measures = measured(captions, references, judges, metrics)
    intervals = {
        name: list(measure_interval(measures[name])[1:]) for name in INTERVALS if name in measures
    }
    return {**row, "intervals": intervals}


def human(
    references: Sequence[Sequence[str]],
    judges: Mapping[str, Judge],
    metrics: Sequence[str] = AGREEMENT,
) -> dict[str, float]:
    """The row of human captions: means over which caption of each picture is left out.

    UserError where a picture has fewer than two.
    """
    fewest = min(map(len, references))
    if fewest < 2:
        raise UserError(
            f"a picture has {fewest} captions: to score human captions each needs at least 2"
        )
    rows = []
    for k in range(fewest):
        others = [[*own[:k], *own[k + 1 :]] for own in references]
        rows.append(score([own[k] for own in references], others, judges, metrics))
    return {
        name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "intervals"
    }
