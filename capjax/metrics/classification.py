"""Accuracy of a classifier: top-k, and the mean over classes.

The zero-shot classifier of a contrastive encoder (Radford et al., CLIP, arXiv 2103.00020, section
3.1.4): a class is the mean direction of its prompts' embeddings, and a picture belongs to the class
nearest to it.

As in `retrieval`, ties count against the model: the true class ranks behind every class with the
same score, so that equal scores for all classes are never right.

Legend: N pictures, C classes, T prompts of a class, E embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.errors import UserError
from capjax.metrics.clipscore import normalised
from capjax.metrics.measure import Measure, mean_of
from capjax.metrics.retrieval import TIE


def class_embeddings(prompt_emb: np.ndarray) -> np.ndarray:
    """Unit embeddings of classes from those of their prompts: [C, T, E] -> float64 [C, E].

    Each prompt is normalised before the mean and the mean again, so that all prompts weigh the
    same.

    Raises:
      UserError: another shape, no prompt, or an embedding that is zero or not finite.
    """
    prompt_emb = np.asarray(prompt_emb)
    if prompt_emb.ndim != 3 or not prompt_emb.shape[1]:
        raise UserError(
            f"prompt embeddings {prompt_emb.shape} must be [classes, prompts, size] with at least"
            " one prompt"
        )
    return normalised(normalised(prompt_emb, "prompt").mean(axis=1), "class")


def true_class_ranks(scores: np.ndarray, labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """The rank of each picture's class, from 1: scores [N, C], labels int [N] -> int64 [N].

    Raises:
      UserError: shapes that do not match, or a label beyond the classes.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise UserError(
            f"scores {scores.shape} and labels {labels.shape} do not match: give [pictures,"
            " classes] and one label a picture"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise UserError(
            f"labels from {labels.min()} to {labels.max()} for {scores.shape[1]} classes: they"
            " count from 0"
        )
    own = scores[np.arange(len(labels)), labels][:, None]
    return np.count_nonzero(scores >= own - TIE, axis=1)  # itself makes it 1


def accuracy_measures(
    ranks: np.ndarray, labels: np.ndarray, ks: Sequence[int] = (1, 5)
) -> dict[str, Measure]:
    """`top_k` for each k, and `mean_per_class`, the mean of the classes' top-1 accuracies.

    Classes without a picture do not count in `mean_per_class`. Arguments as `true_class_ranks`
    takes and gives.

    Raises:
      UserError: no pictures.
    """
    ranks, labels = np.asarray(ranks), np.asarray(labels)
    if not len(ranks):
        raise UserError("there are no pictures to classify: give at least one")
    right = (ranks == 1).astype(np.float64)

    def mean_per_class(weights: np.ndarray) -> float:
        pictures = np.bincount(labels, weights)
        hits = np.bincount(labels, weights * right)
        return float(np.mean(hits[pictures > 0] / pictures[pictures > 0]))

    measures = {f"top_{k}": mean_of(ranks <= k) for k in ks}
    return measures | {"mean_per_class": Measure(right, mean_per_class)}
