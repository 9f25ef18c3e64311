"""A reward given to the wrong captions: those of a picture get what the next picture's are worth.

    dict(name="capjax.rewards.shuffled", of=dict(name="capjax.rewards.length"))

The control of both papers that are proved on scenes: rewards, baselines and their spread are those
of the reward `of`, but no caption's own. A policy must gain nothing from them.

Letters: b pictures of a microbatch, K captions of each.
Raises `UserError` for a reward of strings, which comes from the host in another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from capjax.config import instantiate
from capjax.errors import UserError
from capjax.rewards.captions import Captions


class Reward:
    """of: the section of a reward that is a JAX function."""

    def __init__(self, *, of: Mapping[str, Any], reward: str, tokenizer: Any):
        given = {"reward": reward, "tokenizer": tokenizer}
        where = f"config.task.rewards.{reward}.of"
        self._inner = instantiate(of, "Reward", where=where, if_taken=given)
        if not hasattr(self._inner, "score"):
            raise UserError(f"{where} reads strings: only rewards of arrays can be shuffled")

    def __getattr__(self, name: str) -> Any:
        # What else it offers (arrays, look_up, prepare, ...), and only that.
        return getattr(self._inner, name)

    def score(self, arrays: Any, prepared: Any, captions: Captions) -> jax.Array:
        """float32 [b,K]: row i has the rewards of row i + 1, the last those of the first."""
        if len(captions.tokens) < 2:
            raise UserError("rewards of one picture cannot be shuffled: raise config.batch_size")
        return jnp.roll(self._inner.score(arrays, prepared, captions), -1, 0)
