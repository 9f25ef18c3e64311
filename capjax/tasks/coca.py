"""CoCa's joint loss: contrastive_weight * L_con + caption_weight * L_cap (arXiv 2205.01917).

Conditioning dropout, where asked for, touches the caption decoder's context only; the contrastive
path keeps every picture's embedding (guiding, arXiv 2307.16686, section 3.1).

With config.accumulate_steps > 1 the loss is still that of the whole batch: microbatches hand on
embeddings and the log-likelihoods of captions, and only these meet.

Letters: B batch, S side in pixels, L caption positions.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from capjax import special_tokens
from capjax.models.init import init
from capjax.tasks.cached_contrastive import cached_loss_and_grads
from capjax.tasks.caption import check_rate, drop_conditioning, null_of
from capjax.tasks.losses import caption_nll, mean_over_words, softmax_contrastive


class Task:
    """`loss(params, batch, rng)`: the weighted sum of both losses over the global batch."""

    def __init__(
        self,
        *,
        model: nn.Module,
        contrastive_weight: float = 1.0,
        caption_weight: float = 2.0,
        conditioning_dropout: float = 0.0,
    ):
        self.model = model
        self.contrastive_weight = contrastive_weight
        self.caption_weight = caption_weight
        self.conditioning_dropout = check_rate(conditioning_dropout)

    def init(self, rng: jax.Array):
        """The model's parameters, a plain nested dict."""
        return init(self.model, rng)

    def loss(self, params, batch, rng: jax.Array):
        """batch: image uint8 [B,S,S,3], tokens int32 [B,L] -> (loss, metrics)."""
        return self._join(params, self._read(params, batch, rng), batch)

    def accumulate(self, params, batch, microbatches, rng: jax.Array):
        """(loss, metrics, gradients) of the whole batch, read a microbatch at a time."""
        return cached_loss_and_grads(
            lambda *inputs: (self._read(*inputs), ()),
            lambda params, read: self._join(params, read, batch),
            params,
            microbatches,
            rng,
        )[:3]

    def _read(self, params, batch, rng: jax.Array):
        """What the loss needs of each example: both embeddings [B,E], -log p(caption) [B]."""
        drop_rng, condition_rng = jax.random.split(rng)
        tokens = batch["tokens"]

        def forward(model):
            features = model.encode_image(batch["image"], train=True)
            text, words = model.encode_text(tokens, train=True)
            rate, null = self.conditioning_dropout, null_of(model)
            context = drop_conditioning(condition_rng, features.context, rate, null)
            logits = model.caption_logits(words, context, train=True)
            return features.embedding, text, logits

        image, text, logits = self.model.apply(
            {"params": params}, rngs={"dropout": drop_rng}, method=forward
        )
        return image, text, caption_nll(logits, tokens[:, 1:], self._words(batch))

    def _join(self, params, read, batch):
        image, text, nll = read
        caption_loss, count = mean_over_words(nll, self._words(batch))
        contrastive_loss, accuracy = softmax_contrastive(image, text, params["logit_scale"])
        loss = self.contrastive_weight * contrastive_loss + self.caption_weight * caption_loss
        return loss, {
            "caption_loss": caption_loss,
            "contrastive_loss": contrastive_loss,
            "contrastive_accuracy": accuracy,
            "weight": count,
        }

    def _words(self, batch) -> jax.Array:
        return special_tokens.of(self.model).to_write(batch["tokens"])
