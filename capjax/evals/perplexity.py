"""How well a language model predicts texts: nats a token, and perplexity, their exponential.

Letters: B rows, L positions of a row, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from capjax import special_tokens
from capjax.config import instantiate
from capjax.errors import UserError
from capjax.parallel.rows import put_rows
from capjax.tasks.losses import caption_nll


@functools.partial(jax.jit, static_argnums=0)
def _nll(model: nn.Module, params, tokens: jax.Array) -> jax.Array:
    """int32 [B,L] -> -log p of each row's tokens after its first, EOS included: float32 [B]."""
    words = special_tokens.of(model).to_write(tokens)
    logits = model.apply({"params": params}, tokens)
    return caption_nll(logits, tokens[:, 1:], words)


class Evaluator:
    """`run(params)`: nats_per_token and perplexity of the texts of `data`, all captions of each
    record. Too long texts are cut at the row's end.

    data: a source section; limit: at most so many of its records.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tokenizer,
        data: Mapping[str, Any],
        batch_size: int = 64,
        limit: int = 0,
    ):
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        source = instantiate(data, "Source", where="the evaluator's data")
        count = min(len(source), limit or len(source))
        self.texts = [text for i in range(count) for text in source.captions(i)]
        if not self.texts:
            raise UserError("the evaluator's data hold no texts: nothing to predict")

    def run(self, params) -> dict[str, float]:
        """Nats and perplexity, over all tokens together."""
        rows = self.tokenizer.encode_batch(self.texts, truncate=True)
        special, nats = self.tokenizer.special_tokens, 0.0
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            filled = np.zeros((self.batch_size, rows.shape[1]), np.int32)
            filled[: len(part)] = part
            values = _nll(self.model, params, put_rows(filled, params))
            nats += float(np.asarray(values)[: len(part)].sum())
        per_token = nats / int(special.to_write(rows).sum())
        return {"nats_per_token": per_token, "perplexity": float(np.exp(per_token))}
