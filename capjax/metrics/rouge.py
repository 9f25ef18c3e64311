"""ROUGE-L as coco-caption computes it: longest common subsequence, F-measure with beta 1.2.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004. Best precision and best recall
over the references are taken apart, as coco-caption does. The corpus value is the mean over images.

The subsequence is found with one integer for the whole dynamic-programming column, a bit a word
(Hyyrö, "Bit-parallel LCS-length computation revisited", 2004), since the plain table would be the
slowest part of an evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.metrics.references import Candidates

BETA = 1.2


def rouge_l(candidates: Candidates) -> np.ndarray:
    """ROUGE-L of each image: float64 [N]."""
    pairs = zip(candidates.tokens, candidates.references.tokens, strict=True)
    return np.array([sentence_rouge_l(candidate, references) for candidate, references in pairs])


def sentence_rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of one tokenised candidate against its tokenised references."""
    candidate = candidate or [""]  # coco-caption splits the empty caption into one empty word
    masks = _masks(candidate)
    precision = recall = 0.0
    for reference in references:
        common = _common_length(masks, len(candidate), reference or [""])
        precision = max(precision, common / len(candidate))
        recall = max(recall, common / max(len(reference), 1))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest sequence of words that both hold in order."""
    return _common_length(_masks(first), len(first), second)


def _masks(words: Sequence[str]) -> dict[str, int]:
    """For each word, the places where it stands, as bits."""
    masks: dict[str, int] = {}
    for place, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


def _common_length(masks: dict[str, int], length: int, words: Sequence[str]) -> int:
    column = everything = (1 << length) - 1  # a zero bit: the subsequence grows at this word
    for word in words:
        mask = masks.get(word)
        if mask is not None:
            matched = column & mask
            column = (column + matched | column - matched) & everything
    return length - column.bit_count()
