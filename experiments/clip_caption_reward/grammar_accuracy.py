"""How often a judge of grammar is right about captions and about corrupted copies of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from capjax.models.grammar_head import GrammarHead, text_features
from capjax.rewards.corruptions import corrupt
from capjax.runs import Run


def grammar_accuracy(judge: Run, captions: Sequence[str], seed: int = 0) -> dict[str, float]:
    """How often the judge is right about captions, about a corrupted copy of each, and about both.

    Copies that are captions of the scenes' grammar all the same (a word less may leave one) count
    as corrupted, as they do in training.
    """
    rows = jnp.asarray(judge.tokenizer.encode_batch(list(captions)))
    special, size = judge.tokenizer.special_tokens, judge.model.vocab_size
    broken = jax.jit(corrupt, static_argnums=(2, 3))(jax.random.key(seed), rows, special, size)

    @jax.jit
    def good(params: Any, rows: jax.Array) -> jax.Array:
        features = text_features(judge.model, params, rows)
        return GrammarHead().apply({"params": params["grammar_head"]}, features).argmax(-1)

    kept = float(np.mean(good(judge.params, rows) == 1))
    caught = float(np.mean(good(judge.params, broken) == 0))
    return {"captions": kept, "corrupted": caught, "accuracy": (kept + caught) / 2}
