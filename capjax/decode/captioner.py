"""From pictures to caption strings: a trained captioner with its tokenizer.

Letters: B pictures, S side in pixels, C context tokens, E embedding width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np

from capjax.decode.greedy import greedy
from capjax.errors import UserError
from capjax.models.coca import ImageFeatures
from capjax.parallel.rows import put_rows


@dataclasses.dataclass(frozen=True)
class Caption:
    """One caption as it was decoded."""

    text: str
    log_prob: float  # log p(caption | picture) of the conditional branch, in nats
    truncated: bool  # it reached the longest length without an end


@functools.partial(jax.jit, static_argnums=0)
def encode_image(model: nn.Module, params, image: jax.Array) -> ImageFeatures:
    """uint8 [B,S,S,3] -> embedding [B,E] and context [B,C,E]."""
    return model.apply({"params": params}, image, method="encode_image")


class Captioner:
    """Greedy captions of pictures at any guidance scale.

    A picture is encoded once for all of its scales. UserError for a model that cannot write.
    """

    def __init__(self, model: nn.Module, params, tokenizer):
        if not hasattr(model, "decode_step"):
            raise UserError(
                f"the model {type(model).__module__} writes no captions: "
                "give a captioner's run, such as one of capjax.models.coca"
            )
        self.model, self.params, self.tokenizer = model, params, tokenizer

    def encode(self, image: np.ndarray) -> ImageFeatures:
        """uint8 [B,S,S,3] -> features on the device; rows are split over all devices."""
        return encode_image(self.model, self.params, put_rows(image, self.params))

    def write(
        self, context: jax.Array, guidance_scale: float | Sequence[float] = 1.0
    ) -> list[Caption]:
        """Captions of contexts [B,C,E] at one scale, or at one scale a row."""
        generation = jax.device_get(greedy(self.model, self.params, context, guidance_scale))
        return [
            Caption(self.tokenizer.decode(tokens), float(log_prob), bool(truncated))
            for tokens, log_prob, truncated in zip(*generation, strict=True)
        ]
