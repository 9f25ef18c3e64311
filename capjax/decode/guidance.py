"""Classifier-free guidance of a captioner (guiding, arXiv 2307.16686, section 3.1).

The guided score of the next token is  f(x, 0) + gamma * (f(x, e) - f(x, 0)):  gamma = 1 is the
ordinary p(caption|picture), gamma = 0 the unconditional p(caption), and gamma > 1 rewards tokens
that single the picture out. Both branches read the same prefix, the guided choices.

Letters: B captions, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from capjax.errors import UserError

LARGEST_USEFUL_SCALE = 4.0  # beyond it retrieval falls and text degenerates (guiding, table 1)


def guide(conditional: jax.Array, unconditional: jax.Array, guidance_scale: jax.Array):
    """Guided scores [B,V] of two branches' scores [B,V]; guidance_scale is a scalar or [B].

    Logits and log-probabilities give the same greedy choice: they differ by a constant a step.
    """
    scale = jnp.asarray(guidance_scale)[..., None]
    return unconditional + scale * (conditional - unconditional)


def guide_by_language_model(
    language_model: jax.Array,
    conditional: jax.Array,
    unconditional: jax.Array,
    alpha: float,
    beta: float,
) -> jax.Array:
    """log q(x) + alpha log p(x|picture) - beta log p(x), all [B,V] (guiding, section 3.2).

    The three arguments are logits over one vocabulary; q is a separately trained language model.
    With q = p(x) and alpha = beta = gamma it is `guide`, up to a constant a row.
    """
    q, p_picture, p = map(jax.nn.log_softmax, (language_model, conditional, unconditional))
    return q + alpha * p_picture - beta * p


def check_scale(guidance_scale: float | Sequence[float], batch: int) -> np.ndarray:
    """float32 [B]: one scale for each caption of a batch; UserError for what is not a scale.

    Warns beyond 4, where captions degenerate.
    """
    scales = np.asarray(guidance_scale, np.float32)
    if scales.ndim > 1 or (scales.ndim == 1 and len(scales) != batch):
        raise UserError(
            f"guidance_scale has shape {scales.shape} for {batch} captions: "
            "give one number, or one for each caption"
        )
    wrong = scales[~np.isfinite(scales) | (scales < 0)]
    if wrong.size:
        raise UserError(
            f"guidance_scale (gamma) is {wrong.flat[0]}: choose a finite number of at least 0 "
            "(1 decodes without guidance)"
        )
    if np.any(scales > LARGEST_USEFUL_SCALE):
        warnings.warn(
            f"guidance_scale {scales.max():g} is above {LARGEST_USEFUL_SCALE:g}: "
            "captions are likely to degenerate",
            stacklevel=2,
        )
    return np.broadcast_to(scales, (batch,))


def warn_if_untrained(config, scales: Sequence[float]) -> None:
    """Warns where a scale needs the unconditional branch of a run that never trained it.

    `config` is the run's; pretrained captioners fed zeros still resemble p(caption) (guiding,
    section 3.1, footnote), so this is no error.
    """
    rate = config.task.get("conditioning_dropout", 0.0)
    if rate == 0 and any(scale != 1 for scale in scales):
        warnings.warn(
            "this run was trained with conditioning_dropout=0: its unconditional branch, which "
            "guidance needs, was never trained",
            stacklevel=2,
        )
