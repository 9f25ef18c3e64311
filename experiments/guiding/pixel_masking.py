"""The picture is blackened in training, where guiding zeroes its embedding.

What is trained is then f(., e(black)), and the f(., 0) that decoding uses is not: an ablation.
Where decoding reads e(black), too (`Captioner.start(.., unconditional=..)`), it is another way to
have an unconditional branch (`beyond`).

Letters: B batch, S side in pixels.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from capjax.tasks import coca
from capjax.tasks.caption import check_rate, drop_conditioning


class Task(coca.Task):
    """CoCa's joint loss on batches of which a share `rate` of the pictures is black.

    weights: `contrastive_weight` and `caption_weight`, those of `capjax.tasks.coca` unless given.
    """

    def __init__(self, *, model: nn.Module, rate: float = 0.5, **weights: float):
        super().__init__(model=model, **weights)
        self.rate = check_rate(rate)

    def loss(self, params, batch, rng: jax.Array):
        """batch: image uint8 [B,S,S,3], tokens int32 [B,L] -> (loss, metrics)."""
        mask_rng, rng = jax.random.split(rng)
        image = batch["image"]
        flat = image.reshape(len(image), 1, -1)
        masked = drop_conditioning(mask_rng, flat, self.rate).reshape(image.shape)
        return super().loss(params, {**batch, "image": masked}, rng)
