"""Whether a way of decoding moves the Pareto frontier of greedy guidance: the criterion.

Two numbers are wanted high, agreement (CIDEr) and specificity (R@1); greedy guidance offers a curve
of pairs, one for each scale. Who writes each picture's caption at a scale drawn at random gets, on
average, any point between two of the curve. What greedy guidance reaches is therefore the upper
hull of its points: `reach` is the highest specificity that it has with an agreement of at least so
much. Above all of its agreements stands the specificity where it agrees most.

The excess of another way is its specificity less that reach at its own agreement. Its interval is
that of a paired bootstrap over pictures: in every draw the curve, its hull and the other way are
measured anew on the same pictures. The hull of noisy points lies too high rather than too low,
which is to the disadvantage of who claims to be above it.

The verdict is "ahead" where the interval lies above zero, "behind" where it lies below, else
"level". The interval is one of 99%, for several ways are tried on the same pictures.

Letters: N pictures, G scales, D draws.
"""

from __future__ import annotations

import numpy as np

from capjax.metrics.bootstrap import Interval

CONFIDENCE = 0.99
DRAWS = 2000


def reach(agreement: np.ndarray, specificity: np.ndarray, at: np.ndarray) -> np.ndarray:
    """[D]: the most specificity that mixing the points [D,G] has with an agreement of `at` [D]."""
    enough = agreement >= at[:, None]
    alone = np.where(enough, specificity, -np.inf).max(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # [D,G,G]: from a point that agrees too little towards one that agrees enough.
        share = (at[:, None, None] - agreement[:, :, None]) / (
            agreement[:, None, :] - agreement[:, :, None]
        )
        between = specificity[:, :, None] * (1 - share) + specificity[:, None, :] * share
    mixes = ~enough[:, :, None] & enough[:, None, :]
    best = np.maximum(alone, np.where(mixes, between, -np.inf).max((1, 2)))
    most = np.take_along_axis(specificity, agreement.argmax(1)[:, None], 1)[:, 0]
    return np.where(enough.any(1), best, most)


def excess(greedy: np.ndarray, other: np.ndarray, seed: int = 0) -> Interval:
    """What `other` [2,N] has above greedy guidance [G,2,N]; rows: agreement, specificity."""
    images = other.shape[1]
    generator = np.random.default_rng(seed)
    drawn = generator.integers(images, size=(DRAWS, images))
    weights = np.stack([np.bincount(row, minlength=images) for row in drawn])
    weights = np.concatenate([np.ones((1, images)), weights]) / images  # first, as they are
    agreement, specificity = (weights @ greedy[:, row].T for row in range(2))
    at, own = (weights @ other[row] for row in range(2))
    found = own - reach(agreement, specificity, at)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found[1:], [tail, 1 - tail])
    return Interval(float(found[0]), float(low), float(high))


def verdict(found: Interval) -> str:
    """ "ahead", "behind" or "level"."""
    return "ahead" if found.low > 0 else "behind" if found.high < 0 else "level"
