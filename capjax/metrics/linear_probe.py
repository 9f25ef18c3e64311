"""Linear probe: multinomial logistic regression on frozen features, its penalty chosen by search.

Radford et al., CLIP (arXiv 2103.00020, section 3.2 and appendix A.3): L-BFGS with at most 1,000
iterations; the penalty is searched between 1e-6 and 1e6 on a validation set, from seven values two
decades apart by halving the step around the best one down to 1/8 of a decade, and the probe is then
fitted again on training and validation pictures together.

Legend: N pictures, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from capjax.errors import UserError

LOWEST, HIGHEST = -6, 6  # log10 of the penalty
FIRST_STEP, LAST_STEP = 2.0, 0.125  # decades
MAX_ITERATIONS = 1000


class Probe(NamedTuple):
    """weights: float64 [C, D]. bias: float64 [C]. converged: within the iterations allowed."""

    weights: np.ndarray
    bias: np.ndarray
    converged: bool

    def scores(self, features: np.ndarray) -> np.ndarray:
        """[N, D] -> logits [N, C]."""
        return np.asarray(features, np.float64) @ self.weights.T + self.bias


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    penalty: float,
    max_iterations: int = MAX_ITERATIONS,
) -> Probe:
    """Minimises sum of cross-entropies + penalty / 2 * |weights|^2 (scikit-learn: C = 1 / penalty).

    features [N, D], labels int [N] in 0 .. C - 1. The bias is not penalised.

    Raises:
      UserError: shapes that do not match, features that are not finite, a penalty below 0, or fewer
        than two classes in the labels.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    _require(features, labels, classes, penalty)
    target = np.zeros((len(labels), classes))
    target[np.arange(len(labels)), labels] = 1.0
    width = features.shape[1]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[:-classes].reshape(classes, width), flat[-classes:]
        logits = features @ weights.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        log_p = logits - log_sum
        loss = -np.sum(target * log_p) + penalty / 2 * np.sum(weights**2)
        residual = np.exp(log_p) - target
        gradient = residual.T @ features + penalty * weights
        return loss, np.concatenate([gradient.ravel(), residual.sum(axis=0)])

    found = minimize(
        objective,
        np.zeros(classes * (width + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "maxfun": 4 * max_iterations, "gtol": 1e-4},
    )
    return Probe(
        found.x[:-classes].reshape(classes, width), found.x[-classes:], bool(found.success)
    )


def search(score: Callable[[float], float]) -> tuple[float, dict[float, float]]:
    """The penalty with the highest score, and the scores of all that were tried; 15 at most.

    Of equal scores the largest penalty wins: the simplest probe.
    """
    tried: dict[float, float] = {}  # log10 of the penalty -> score

    def best() -> float:
        return max(tried, key=lambda exponent: (tried[exponent], exponent))

    def try_(exponent: float) -> None:
        if LOWEST <= exponent <= HIGHEST and exponent not in tried:
            tried[exponent] = score(10.0**exponent)

    for exponent in np.arange(LOWEST, HIGHEST + FIRST_STEP / 2, FIRST_STEP):
        try_(float(exponent))
    step = FIRST_STEP
    while step > LAST_STEP:
        step /= 2
        centre = best()
        try_(centre - step)
        try_(centre + step)
    return 10.0 ** best(), {10.0**exponent: value for exponent, value in tried.items()}


def _require(features: np.ndarray, labels: np.ndarray, classes: int, penalty: float) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise UserError(
            f"features {features.shape} and labels {labels.shape} do not match: give [pictures,"
            " features] and one label a picture"
        )
    if not np.all(np.isfinite(features)):
        raise UserError("some features are not finite: check the model that made them")
    if not penalty >= 0:
        raise UserError(f"the penalty of a linear probe is {penalty}: give 0 or more")
    if len(np.unique(labels)) < 2:
        raise UserError("a linear probe needs pictures of at least two classes to learn from")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"labels from {labels.min()} to {labels.max()} for {classes} classes: they count from 0"
        )
