"""Contrastive training of any model with `embed_image` and `embed_text` (a dual encoder, CoCa).

Letters: B batch, S side in pixels, L caption positions, E embedding width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.tasks.caption import init
from capjax.tasks.losses import MAX_LOGIT_SCALE, softmax_contrastive


class Task:
    """`loss(params, batch, rng)`: symmetric InfoNCE over the global batch."""

    def __init__(self, *, model: nn.Module):
        self.model = model

    def init(self, rng: jax.Array):
        """The model's parameters, a plain nested dict."""
        return init(self.model, rng)

    def loss(self, params, batch, rng: jax.Array):
        """batch: image uint8 [B,S,S,3], tokens int32 [B,L] -> (loss, metrics)."""

        def forward(model):
            return (
                model.embed_image(batch["image"], train=True),
                model.embed_text(batch["tokens"], train=True),
            )

        image, text = self.model.apply({"params": params}, rngs={"dropout": rng}, method=forward)
        loss, accuracy = softmax_contrastive(image, text, params["logit_scale"])
        return loss, {
            "contrastive_loss": loss,
            "contrastive_accuracy": accuracy,
            "logit_scale": jnp.minimum(jnp.exp(params["logit_scale"]), MAX_LOGIT_SCALE),
        }
