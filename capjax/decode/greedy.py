"""Greedy captions, guided or not: `search` with its defaults, one caption a picture.

Letters: B captions, C context tokens, E embedding width, T = max_length - 1 positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from capjax.decode.search import search


class Generation(NamedTuple):
    """Captions as tokens."""

    tokens: jax.Array  # int32 [B,T]: words, EOS, then PAD
    log_prob: jax.Array  # float32 [B]: log p(caption | context), of the conditional branch alone
    truncated: jax.Array  # bool [B]: no EOS within T tokens


def greedy(
    model: nn.Module,
    params,
    context: jax.Array,
    guidance_scale: float | Sequence[float] = 1.0,
    unconditional: jax.Array | None = None,
    prompt: np.ndarray | None = None,
) -> Generation:
    """The greedy captions of contexts [B,C,E]; see `search` for the arguments."""
    found = search(
        model, params, context, guidance_scale, unconditional=unconditional, prompt=prompt
    )
    return Generation(found.tokens[:, 0], found.log_prob[:, 0], found.truncated[:, 0])
