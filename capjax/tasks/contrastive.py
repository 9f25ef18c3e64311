"""Contrastive training of any model with `embed_image` and `embed_text` (a dual encoder, CoCa).

The model owns `logit_scale`, the log of the scale (1 / temperature); a bias, which only the sigmoid
loss needs, is added beside its parameters as `logit_bias`. Presets of three papers:

    CLIP     loss="softmax", initial_scale=1/0.07, max_scale=100
    ALIGN    loss="softmax", reduction="sum", label_smoothing=0.1, initial_scale=1, max_scale=0
    SigLIP   loss="sigmoid", initial_scale=10, initial_bias=-10, max_scale=0

With config.accumulate_steps > 1 the loss is still that of the whole batch.

A model with BatchNorm hands back its running statistics, which go to the loop as the metric
`batch_stats`. A model with `prefixes` is told by batch["source"] which one each text begins with:
its prefixes are the names of the sources of a `capjax.data.mixture`, in their sorted order.

Letters: B batch, S side in pixels, L caption positions, E embedding width.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.errors import UserError
from capjax.models import batch_norm
from capjax.models.init import init
from capjax.tasks.cached_contrastive import cached_loss_and_grads
from capjax.tasks.contrastive_losses import (
    MAX_LOGIT_SCALE,
    check_options,
    clip_scale,
    contrastive_loss,
)
from capjax.tasks.same_captions import caption_numbers, duplicates


class Task:
    """`loss(params, batch, rng)`: a contrastive loss over the global batch.

    loss, reduction, label_smoothing and block are those of `contrastive_loss`; "unicl" reads
    batch["class_id"], below 0 for a pair that has no class. The initial scale is the model's own if
    it is None; a max_scale of 0 is none. How many captions of a batch repeat another one is the
    metric `duplicate_captions`; with ignore_duplicates their pairs are no negatives of each other.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: str = "softmax",
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        block: int = 0,
        ignore_duplicates: bool = False,
        initial_scale: float | None = None,
        max_scale: float = MAX_LOGIT_SCALE,
        initial_bias: float = -10.0,
    ):
        check_options(loss, reduction, label_smoothing, block)
        for name, value in (("initial_scale", initial_scale), ("max_scale", max_scale or None)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"{name}={value} must be above 0: it multiplies the cosines")
        if initial_scale is not None and max_scale and initial_scale > max_scale:
            raise UserError(f"initial_scale={initial_scale} is above max_scale={max_scale}")
        self.model = model
        self.kind = loss
        self.options = {
            "reduction": reduction,
            "label_smoothing": label_smoothing,
            "block": block,
        }
        self.ignore_duplicates = ignore_duplicates
        self.initial_scale, self.max_scale = initial_scale, max_scale
        self.initial_bias = initial_bias

    def init(self, rng: jax.Array):
        """The model's parameters, a plain nested dict, and the bias of a sigmoid."""
        params = init(self.model, rng)
        if "logit_scale" not in params:
            raise UserError(
                "the model has no parameter 'logit_scale', the log of its learned scale: "
                "contrastive training needs one"
            )
        if self.initial_scale is not None:
            value = math.log(self.initial_scale)
            params = params | {"logit_scale": jnp.full_like(params["logit_scale"], value)}
        if self.kind == "sigmoid":
            params = params | {"logit_bias": jnp.asarray(self.initial_bias, jnp.float32)}
        return params

    def loss(self, params, batch, rng: jax.Array):
        """batch: image uint8 [B,S,S,3], tokens int32 [B,L] -> (loss, metrics)."""
        embeddings, statistics = self._embed(params, batch, rng)
        loss, metrics = self._compare(params, embeddings, batch)
        return loss, metrics | ({batch_norm.COLLECTION: statistics} if statistics else {})

    def accumulate(self, params, batch, microbatches, rng: jax.Array):
        """(loss, metrics, gradients) of the whole batch, embedded a microbatch at a time."""
        loss, metrics, grads, statistics = cached_loss_and_grads(
            self._embed,
            lambda params, embeddings: self._compare(params, embeddings, batch),
            params,
            microbatches,
            rng,
        )
        return loss, metrics | ({batch_norm.COLLECTION: statistics} if statistics else {}), grads

    def _embed(self, params, batch, rng: jax.Array):
        """(embeddings [B,E] of the pictures and of the texts, new statistics of BatchNorm)."""
        told = {}
        if getattr(self.model, "prefixes", ()):
            if "source" not in batch:
                raise UserError(
                    "the model's texts begin with a prefix for their source, and the training data "
                    "does not say where a pair comes from: use capjax.data.mixture"
                )
            told["prefix"] = batch["source"]

        def forward(model):
            return (
                model.embed_image(batch["image"], train=True),
                model.embed_text(batch["tokens"], train=True, **told),
            )

        embeddings, state = self.model.apply(
            {"params": params},
            rngs={"dropout": rng},
            method=forward,
            mutable=[batch_norm.COLLECTION],
        )
        return embeddings, state.get(batch_norm.COLLECTION, {})

    def _compare(self, params, embeddings, batch) -> tuple[jax.Array, dict[str, Any]]:
        scale = clip_scale(params["logit_scale"], self.max_scale)
        bias = params["logit_bias"] if self.kind == "sigmoid" else 0.0
        labels = batch.get("class_id") if self.kind == "unicl" else None
        captions = caption_numbers(batch["tokens"])
        loss, accuracy = contrastive_loss(
            self.kind,
            *embeddings,
            scale,
            bias,
            labels=labels,
            groups=captions if self.ignore_duplicates else None,
            **self.options,
        )
        metrics = {
            "duplicate_captions": duplicates(captions),
            "contrastive_loss": loss,
            "contrastive_accuracy": accuracy,
            "logit_scale": scale,
        }
        return loss, metrics | ({"logit_bias": bias} if self.kind == "sigmoid" else {})
