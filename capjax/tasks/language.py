"""Language modelling: the mean over tokens of -log p(token | those before it).

Letters: B batch, L positions of a row, V vocabulary.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from capjax import special_tokens
from capjax.models.init import init
from capjax.tasks.losses import caption_cross_entropy


class Task:
    """`loss(params, batch, rng)` of a model whose call turns tokens [B,L] to logits [B,L-1,V]."""

    def __init__(self, *, model: nn.Module):
        self.model = model

    def init(self, rng: jax.Array):
        """The model's parameters, a plain nested dict."""
        return init(self.model, rng)

    def loss(self, params, batch, rng: jax.Array):
        """batch: tokens int32 [B,L] -> (loss, metrics)."""
        tokens = batch["tokens"]
        logits = self.model.apply({"params": params}, tokens, True, rngs={"dropout": rng})
        words = special_tokens.of(self.model).to_write(tokens)
        loss, count = caption_cross_entropy(logits, tokens[:, 1:], words)
        return loss, {"language_loss": loss, "weight": count}
