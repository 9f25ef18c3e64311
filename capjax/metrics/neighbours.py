"""Nearest-neighbour classification in a space of embeddings.

A picture gets the class whose pictures among its k nearest training pictures have the largest sum
of similarities; with k = 1 that is the label of the nearest one, the KNN metric of ALIGN (arXiv
2102.05918, section 6).

Legend: N pictures to classify, M training pictures, C classes, E embedding size.
"""

from __future__ import annotations

import numpy as np

from capjax.errors import UserError
from capjax.metrics.clipscore import normalised
from capjax.metrics.retrieval import require_same_size

_BLOCK = 1 << 24  # similarities held at a time: 128 MiB


def neighbour_scores(
    features: np.ndarray,
    train_features: np.ndarray,
    train_labels: np.ndarray,
    classes: int,
    k: int = 1,
) -> np.ndarray:
    """Votes of the k nearest training pictures, by cosine: float64 [N, C].

    features [N, E], train_features [M, E], train_labels int [M]. A vote is 1 + cosine, so that it
    is never negative. Of training pictures that are equally near the first ones vote.

    Raises:
      UserError: shapes that do not match, or k outside 1 .. M.
    """
    query, known = normalised(features, "picture"), normalised(train_features, "training picture")
    require_same_size(query, known)
    train_labels = np.asarray(train_labels)
    if train_labels.shape != known.shape[:1]:
        raise UserError(
            f"{len(known)} training pictures and labels {train_labels.shape}: give one label each"
        )
    if not 1 <= k <= len(known):
        raise UserError(f"k={k} neighbours of {len(known)} training pictures: give 1 to that many")
    votes = np.zeros((len(query), classes))
    block = max(1, _BLOCK // len(known))
    for begin in range(0, len(query), block):
        similarity = query[begin : begin + block] @ known.T
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        rows = np.arange(len(similarity))[:, None]
        np.add.at(
            votes[begin : begin + block],
            (np.broadcast_to(rows, nearest.shape), train_labels[nearest]),
            1.0 + similarity[rows, nearest],
        )
    return votes
