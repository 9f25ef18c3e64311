"""Rows of unequal length in flat arrays: what NumPy has no name for."""

from __future__ import annotations

import numpy as np


def starts(counts: np.ndarray) -> np.ndarray:
    """Where each row starts if rows of these lengths are laid end to end, and the end: [N + 1]."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def expand(first: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranges first[n] up to first[n] + counts[n], end to end.

    Returns:
      (n, number) for every number in every range, each int64 [sum of counts].
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts, dtype=np.int64) - counts
    return owner, np.arange(len(owner)) + np.repeat(first - before, counts)


def pairs_within(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All ordered pairs of two members that are in the same group; group: [N] of any integers."""
    order = np.argsort(group, kind="stable")
    _, first, place, size = np.unique(
        group[order], return_index=True, return_inverse=True, return_counts=True
    )
    one, other = expand(first[place], size[place])
    different = one != other
    return order[one[different]], order[other[different]]
