"""A judge of grammar on the text tower of a dual encoder (arXiv 2205.13115, section 3.2).

It reads the text's feature before the projection into the common space, and tells captions as they
are written from broken ones. Letters: B texts, L positions, D width of the text tower.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from capjax.errors import UserError

PROJECTION = "text_projection"  # the submodule of every dual encoder here that makes embeddings


class GrammarHead(nn.Module):
    """Two layers without biases: features [B,D] -> logits float32 [B,2], of broken and of good."""

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        hidden = nn.relu(nn.Dense(features.shape[-1], use_bias=False, name="hidden")(features))
        return nn.Dense(2, use_bias=False, name="logits")(hidden).astype("float32")


def text_features(
    model: nn.Module, params: Any, tokens: jax.Array, train: bool = False, rngs: Any = None
) -> jax.Array:
    """int32 [B,L] -> [B,D], what the model's text projection reads; UserError if it has none."""
    seen = []

    def listen(call, args, kwargs, context):
        if context.module.name == PROJECTION:
            seen.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(listen):
        model.apply({"params": params}, tokens, train, method="embed_text", rngs=rngs)
    if not seen:
        raise UserError(
            f"the model {type(model).__module__} has no {PROJECTION}, whose input the judge of "
            "grammar reads: use a dual encoder such as capjax.models.dual_encoder"
        )
    return seen[-1]
