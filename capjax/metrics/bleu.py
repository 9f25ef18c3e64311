"""BLEU-1..4 as coco-caption computes it: closest reference length, tiny smoothing constants.

Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", ACL 2002. The
corpus value is not the mean of the values per image: counts are added up first.

Legend: N images; a row of statistics is (candidate length, reference length, 4 counts of n-grams
that match, 4 counts of n-grams in the candidate).
"""

from __future__ import annotations

import numpy as np

from capjax.metrics.measure import Measure, of_sums
from capjax.metrics.ngrams import MAX_ORDER
from capjax.metrics.references import Candidates

SMALL = 1e-9  # both as in coco-caption: no division by zero,
TINY = 1e-15  # and no logarithm-like collapse of a single missing order
_FAR = 1 << 32  # more than any length, so that a length can break ties of distances


def bleu_statistics(candidates: Candidates) -> np.ndarray:
    """The counts from which BLEU is made, per image: int64 [N, 10]."""
    references = candidates.references
    images = len(references)
    length = candidates.ngrams.lengths
    reference_lengths = references.ngrams.lengths
    distance = np.abs(reference_lengths - length[references.image])
    closest = np.minimum.reduceat(distance * _FAR + reference_lengths, references.first) % _FAR
    correct, guessed = [], []
    for n, (order, run, postings) in enumerate(
        zip(candidates.ngrams.orders, candidates.run, references.postings, strict=True)
    ):
        hit = run >= 0
        clipped = np.minimum(order.count[hit], postings.max_count[run[hit]])
        correct.append(np.bincount(order.sentence[hit], clipped, images).astype(np.int64))
        guessed.append(np.maximum(0, length - n))
    return np.stack([length, closest, *correct, *guessed], axis=1)


def bleu_from_statistics(statistics: np.ndarray) -> np.ndarray:
    """BLEU-1..4 of each row of statistics: float64 [..., 10] -> [..., 4].

    For a corpus, add the rows up: `bleu_from_statistics(statistics.sum(axis=0))`.
    """
    statistics = np.asarray(statistics, np.float64)
    length, reference_length = statistics[..., 0], statistics[..., 1]
    correct = statistics[..., 2 : 2 + MAX_ORDER]
    guessed = statistics[..., 2 + MAX_ORDER :]
    precision = np.cumprod((correct + TINY) / (guessed + SMALL), axis=-1)
    bleu = precision ** (1.0 / np.arange(1, MAX_ORDER + 1))
    ratio = (length + TINY) / (reference_length + SMALL)
    brevity = np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
    return bleu * brevity[..., None]


def bleu(candidates: Candidates) -> dict[str, Measure]:
    """bleu_1 to bleu_4."""
    statistics = bleu_statistics(candidates)
    return {
        f"bleu_{n}": of_sums(statistics, lambda sums, n=n: bleu_from_statistics(sums)[..., n - 1])
        for n in range(1, MAX_ORDER + 1)
    }
