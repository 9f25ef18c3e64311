"""Rules that choose each picture's guidance scale, by going through the scales until one says stop.

Captions are written at rising scales, and every one of them has a value that needs no reference and
no judge: how likely the captioner finds it, log p(caption | picture), or how near the picture it is
in the captioner's own space. Beyond guiding (arXiv 2307.16686), which has one scale for all.

    last_within      go on while the caption has lost no more than `slack` of the plain one's value
    first_reaching   stop at the first caption that is good enough

Letters: N pictures, G scales in rising order.
"""

from __future__ import annotations

import numpy as np


def last_within(values: np.ndarray, slack: float) -> np.ndarray:
    """int [N]: of values [N,G] the last of those, from the first on, that lie within `slack`.

    What comes after one that has lost more is not looked at; with slack 0 or more the first is
    always allowed.
    """
    allowed = values >= values[:, :1] - slack
    return np.cumprod(allowed, axis=1).sum(1) - 1


def first_reaching(values: np.ndarray, threshold: float) -> np.ndarray:
    """int [N]: the first of values [N,G] that is at least the threshold; the last if none is."""
    reached = values >= threshold
    return np.where(reached.any(1), reached.argmax(1), values.shape[1] - 1)
