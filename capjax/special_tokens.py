"""The special tokens of a vocabulary: their ids, and what they say about a row of tokens.

A run's own SentencePiece vocabulary begins with the four constants below. Published vocabularies
have others (CLIP begins with 49406, ends with 49407 and pads with 0, which is also its word "!";
SigLIP has no beginning and pads with its end, 1), so models, tasks and decoding read them from
`SpecialTokens`: a tokenizer has one, hands it to the model that is made for it, and `of(model)`
finds it there.
Raises `UserError` where a caption is to be begun with a vocabulary that has no beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from capjax.errors import UserError

PAD_ID = 0  # after EOS, to the length of the batch
BOS_ID = 1  # read first, never written
EOS_ID = 2  # ends a caption
UNK_ID = 3  # a piece that the tokenizer does not know


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of one vocabulary; hashable, so that it can be a field of a Flax module."""

    pad: int = PAD_ID
    bos: int | None = BOS_ID  # None: a row begins with its first word
    eos: int = EOS_ID
    never_written: tuple[int, ...] = (PAD_ID, BOS_ID, UNK_ID)  # not words: no caption holds them
    enc: int | None = None  # BLIP's [ENC], which begins a text that is read with a picture

    @property
    def start(self) -> int:
        """BOS, which decoding begins with; UserError if there is none."""
        self._require_bos()
        return self.bos

    def to_write(self, tokens: Any) -> Any:
        """int [...,L] -> bool [...,L-1]: which of tokens[...,1:] a captioner writes after `start`.

        True up to the first EOS, it included. UserError without BOS: a word would stand there.
        """
        self._require_bos()
        return self._until(tokens[..., 1:] == self.eos)

    def _require_bos(self) -> None:
        if self.bos is None:
            raise UserError(
                "this model's captions begin with a first token and the tokenizer has none: choose "
                "a tokenizer whose rows begin with one"
            )

    def until_end(self, tokens: Any) -> Any:
        """int [...,L] of NumPy or JAX -> bool [...,L]: True up to the first EOS, it included.

        Not "what is no padding": a vocabulary may pad with an id that is also a word, or with EOS
        itself. A row without EOS is True throughout. Where BOS is EOS, as in GPT-2's vocabulary,
        the first position is BOS.
        """
        is_end = tokens == self.eos
        if self.bos == self.eos:
            is_end = is_end & (np.arange(tokens.shape[-1]) > 0)
        return self._until(is_end)

    def _until(self, is_end: Any) -> Any:
        return is_end.cumsum(-1) - is_end == 0


def of(model: Any) -> SpecialTokens:
    """The model's field `special_tokens`; without one, those of a run's own vocabulary."""
    return getattr(model, "special_tokens", SpecialTokens())
