"""Length: minus the distance, in tokens, of a caption's length from a range that is wanted.

0 within [least, most], -1 for one token too few or too many, and so on. Letters: b pictures, K
captions of each.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from capjax.errors import UserError
from capjax.rewards.captions import Captions


class Reward:
    """least, most: tokens without BOS and EOS."""

    def __init__(self, *, least: int = 1, most: int = 1000):
        if not 0 <= least <= most:
            raise UserError(f"least={least} and most={most} are no range of lengths")
        self._least, self._most = least, most

    def score(self, arrays: Any, prepared: Any, captions: Captions) -> jax.Array:
        """float32 [b,K]."""
        lengths = captions.lengths
        missing = jnp.maximum(self._least - lengths, 0) + jnp.maximum(lengths - self._most, 0)
        return -missing.astype(jnp.float32)
