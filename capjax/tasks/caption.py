"""Captioning with conditioning dropout: one model of p(caption|picture) and of p(caption).

Each example's context is replaced by zeros, with probability `conditioning_dropout`, before the
caption decoder reads it; such an example trains the unconditional branch f(., 0) with the same
cross-entropy (guiding, arXiv 2307.16686, section 3.1). Zeros, not a black picture; a model with
`learned_null` has a vector of its own in their place, which such examples train.

Letters: B batch, L caption positions, T = L - 1, C context tokens, E embedding width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax import special_tokens
from capjax.errors import UserError
from capjax.models.init import init
from capjax.tasks.losses import caption_cross_entropy


def drop_conditioning(
    rng: jax.Array, context: jax.Array, rate: float, null: jax.Array | float = 0
) -> jax.Array:
    """context [B,C,E] with each example's rows replaced by `null` with probability `rate`."""
    keep = jax.random.bernoulli(rng, 1.0 - rate, (context.shape[0], 1, 1))
    return jnp.where(keep, context, jnp.asarray(null, context.dtype))


def null_of(model: nn.Module) -> jax.Array | float:
    """What stands for no picture, asked of a model within `apply`: [C,E] if it learned it, or 0."""
    return model.null_context() if getattr(model, "learned_null", False) else 0


def check_rate(rate: float) -> float:
    """`rate` if it is a probability; UserError otherwise."""
    if not 0.0 <= rate <= 1.0:
        raise UserError(
            f"conditioning_dropout={rate} is no probability: choose a value between 0 and 1"
        )
    return float(rate)


class Task:
    """`loss(params, batch, rng)`: token-averaged cross-entropy of the batch's captions."""

    def __init__(self, *, model: nn.Module, conditioning_dropout: float = 0.5):
        self.model = model
        self.conditioning_dropout = check_rate(conditioning_dropout)

    def init(self, rng: jax.Array):
        """The model's parameters, a plain nested dict."""
        return init(self.model, rng)

    def loss(self, params, batch, rng: jax.Array):
        """batch: image uint8 [B,S,S,3], tokens int32 [B,L] -> (loss, metrics)."""
        drop_rng, condition_rng = jax.random.split(rng)
        tokens = batch["tokens"]

        def forward(model):
            context = model.encode_image(batch["image"], train=True).context
            rate = self.conditioning_dropout
            context = drop_conditioning(condition_rng, context, rate, null_of(model))
            _, words = model.encode_text(tokens, train=True)
            return model.caption_logits(words, context, train=True)

        logits = self.model.apply({"params": params}, rngs={"dropout": drop_rng}, method=forward)
        targets = tokens[:, 1:]
        is_word = special_tokens.of(self.model).to_write(tokens)
        loss, count = caption_cross_entropy(logits, targets, is_word)
        return loss, {"caption_loss": loss, "weight": count}
