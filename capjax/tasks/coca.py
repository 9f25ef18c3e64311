"""CoCa's joint loss: contrastive_weight * L_con + caption_weight * L_cap (arXiv 2205.01917).

Conditioning dropout, where asked for, touches the caption decoder's context only; the contrastive
path keeps every picture's embedding (guiding, arXiv 2307.16686, section 3.1).

Letters: B batch, S side in pixels, L caption positions.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from capjax import special_tokens
from capjax.tasks.caption import check_rate, drop_conditioning, init
from capjax.tasks.losses import caption_cross_entropy, softmax_contrastive


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
        drop_rng, condition_rng = jax.random.split(rng)
        tokens = batch["tokens"]

        def forward(model):
            features = model.encode_image(batch["image"], train=True)
            text, words = model.encode_text(tokens, train=True)
            context = drop_conditioning(condition_rng, features.context, self.conditioning_dropout)
            logits = model.caption_logits(words, context, train=True)
            return features.embedding, text, logits

        image, text, logits = self.model.apply(
            {"params": params}, rngs={"dropout": drop_rng}, method=forward
        )
        targets = tokens[:, 1:]
        is_word = special_tokens.of(self.model).to_write(tokens)
        caption_loss, count = caption_cross_entropy(logits, targets, is_word)
        contrastive_loss, accuracy = softmax_contrastive(image, text, params["logit_scale"])
        loss = self.contrastive_weight * contrastive_loss + self.caption_weight * caption_loss
        return loss, {
            "caption_loss": caption_loss,
            "contrastive_loss": contrastive_loss,
            "contrastive_accuracy": accuracy,
            "weight": count,
        }
