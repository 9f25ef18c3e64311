"""A contrastive encoder that also judges grammar: L_contrastive + grammar_weight * L_grammar.

L_grammar is the cross-entropy of a head on the text tower that tells captions (class 1) from their
corrupted copies (class 0), one copy each, drawn anew each step (arXiv 2205.13115, section 3.2). The
paper trains the text tower alone: config.optimizer.frozen = ("image_tower", ...).

The head's parameters stand beside the model's as `grammar_head`; `capjax.rewards.grammar` reads
them. Letters: B batch, L caption positions, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from capjax import special_tokens
from capjax.config import instantiate
from capjax.models.grammar_head import GrammarHead, text_features
from capjax.rewards.corruptions import corrupt


class Task:
    """`loss(params, batch, rng)`; contrastive: fields of `capjax.tasks.contrastive`."""

    def __init__(
        self,
        *,
        model: nn.Module,
        grammar_weight: float = 1.0,
        contrastive: Mapping[str, Any] | None = None,
    ):
        self.model, self.grammar_weight = model, grammar_weight
        fields = {"name": "capjax.tasks.contrastive", **(contrastive or {})}
        self._contrastive = instantiate(
            fields, "Task", where="config.task.contrastive", model=model
        )

    def init(self, rng: jax.Array):
        """The model's parameters and the head's, a plain nested dict."""
        params = self._contrastive.init(rng)
        tokens = jnp.zeros((1, self.model.max_length), jnp.int32)
        features = text_features(self.model, params, tokens)
        head = GrammarHead().init(jax.random.fold_in(rng, 1), features)["params"]
        return params | {"grammar_head": head}

    def loss(self, params, batch, rng: jax.Array):
        """batch: image uint8 [B,S,S,3], tokens int32 [B,L] -> (loss, metrics)."""
        loss, metrics = self._contrastive.loss(params, batch, rng)
        corrupt_rng, drop_rng = jax.random.split(jax.random.fold_in(rng, 1))
        special, size = special_tokens.of(self.model), self.model.vocab_size
        tokens = batch["tokens"]
        both = jnp.concatenate([corrupt(corrupt_rng, tokens, special, size), tokens])
        features = text_features(self.model, params, both, True, {"dropout": drop_rng})
        logits = GrammarHead().apply({"params": params["grammar_head"]}, features)
        good = jnp.repeat(jnp.arange(2), len(tokens))
        grammar = optax.softmax_cross_entropy_with_integer_labels(logits, good).mean()
        return loss + self.grammar_weight * grammar, metrics | {
            "grammar_loss": grammar,
            "grammar_accuracy": jnp.mean(logits.argmax(-1) == good),
        }
