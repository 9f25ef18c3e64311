"""CLIP-S: how alike picture and caption are to a frozen encoder, 2.5 max(cosine, 0).

Hessel et al. 2021 (CLIPScore); as a reward arXiv 2205.13115. With `references` it is RefCLIP-S: the
harmonic mean with w max(cosine with the nearest reference, 0), where w = 1 in the metric and 2.5
in the code of arXiv 2205.13115 (`reference_weight`). A caption without a word is worth 0.

Letters: B pictures, b of a microbatch, K captions of each, M references, R positions, E width.
Raises `UserError` for a run that is no encoder, or fewer references than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from capjax.errors import UserError
from capjax.metrics.clipscore import WEIGHT
from capjax.rewards.captions import Captions
from capjax.rewards.encoder import EncoderReward


class Reward(EncoderReward):
    """run: the encoder's run directory. references: how many of a picture's captions are compared
    with; 0: none, CLIP-S."""

    def __init__(
        self,
        *,
        run: str,
        reward: str,
        tokenizer: Any,
        prefix: str = "",
        retokenise: bool = False,
        references: int = 0,
        reference_weight: float = 1.0,
    ):
        if references < 0:
            raise UserError(f"references={references} must be 0 (CLIP-S) or more (RefCLIP-S)")
        super().__init__(run, reward, tokenizer, prefix, retokenise)
        self._most, self._weight = references, reference_weight

    def look_up(
        self, keys: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, np.ndarray]:
        """The rows of references: int32 [B,M,R]."""
        if not self._most:
            return {}
        return {"references": self._encoder.reference_rows(references, self._most)}

    def prepare(self, arrays: Any, batch: Any, looked_up: dict[str, jax.Array]) -> Any:
        """(pictures [B,E], references [B,M,E] or None)."""
        images = self._encoder.embed_images(arrays, batch["image"])
        if not self._most:
            return images, None
        return images, self._encoder.embed_rows(arrays, looked_up["references"])

    def score(self, arrays: Any, prepared: Any, captions: Captions) -> jax.Array:
        """float32 [b,K]."""
        images, references = prepared
        texts = self._encoder.embed_rows(arrays, self._encoder.rows(captions, self._name))
        cosine = jnp.einsum("be,bke->bk", images[captions.own], texts)
        value = WEIGHT * jnp.maximum(cosine, 0)
        if references is not None:
            nearest = jnp.einsum("bme,bke->bkm", references[captions.own], texts).max(-1)
            value = harmonic_mean(value, self._weight * jnp.maximum(nearest, 0))
        return jnp.where(captions.lengths > 0, value, 0)


def harmonic_mean(first: jax.Array, second: jax.Array) -> jax.Array:
    """2ab / (a + b) of what is not negative; 0 where both are 0."""
    total = first + second
    return jnp.where(total > 0, 2 * first * second / jnp.where(total > 0, total, 1), 0)
