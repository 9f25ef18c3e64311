"""Grammar: how likely a judge finds it that a caption is not a broken one, 0 to 1.

The judge is a run of `capjax.tasks.grammar`: a text tower with a head that was trained on corrupted
captions (arXiv 2205.13115, section 3.2). Letters: b pictures, K captions of each.
Raises `UserError` for a run without such a head.
"""

from __future__ import annotations

from typing import Any

import jax

from capjax.errors import UserError
from capjax.models.grammar_head import GrammarHead, text_features
from capjax.rewards.captions import Captions
from capjax.rewards.encoder import EncoderReward


class Reward(EncoderReward):
    """run: the judge's run directory; the other fields are those of `FrozenEncoder`."""

    def __init__(
        self,
        *,
        run: str,
        reward: str,
        tokenizer: Any,
        prefix: str = "",
        retokenise: bool = False,
    ):
        super().__init__(run, reward, tokenizer, prefix, retokenise)
        if "grammar_head" not in self._encoder.params:
            raise UserError(
                f"the run {run!r} has no grammar_head: train one with capjax.tasks.grammar"
            )

    def score(self, arrays: Any, prepared: Any, captions: Captions) -> jax.Array:
        """float32 [b,K]: the probability of the class of good captions."""
        rows = self._encoder.rows(captions, self._name)
        features = text_features(self._encoder.model, arrays, rows.reshape(-1, rows.shape[-1]))
        logits = GrammarHead().apply({"params": arrays["grammar_head"]}, features)
        return jax.nn.softmax(logits)[:, 1].reshape(rows.shape[:-1])
