"""Captions to token ids and back: SentencePiece, trained by a run on its own captions.

Case folding and the Unicode normalisation NFKC are part of the model's own bytes: text is treated
in training and in use alike. Rows and the errors of using them: `capjax.data.token_rows`.

Source: Kudo and Richardson 2018 (SentencePiece), with the byte-pair merges of Sennrich et al. 2016.
Raises `UserError` for bytes that are no SentencePiece model, or captions that give no vocabulary.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

from capjax.data.token_rows import (
    CaptionTooLong,
    TokenRows,
    check_max_length,
    checked,
    read_model,
    valid,
)
from capjax.errors import UserError
from capjax.special_tokens import BOS_ID, EOS_ID, PAD_ID, UNK_ID, SpecialTokens

__all__ = ["CaptionTooLong", "Tokenizer", "make", "reopen", "train"]


def make(
    captions: Callable[[int], Iterable[str]],
    *,
    vocab_size: int,
    max_length: int,
    lowercase: bool = True,
    num_records: int = 20_000,
) -> Tokenizer:
    """A tokenizer trained on the captions of `num_records` records, captions(num_records)."""
    return train(captions(num_records), vocab_size, max_length, lowercase)


def reopen(model: bytes, *, max_length: int, **trained_with: object) -> Tokenizer:
    """What `make` made: the other fields are part of the model's bytes."""
    return Tokenizer(model, max_length)


class Tokenizer(TokenRows):
    """A trained SentencePiece model and the length of its rows."""

    special_tokens = SpecialTokens()

    def __init__(self, model: bytes | str | Path, max_length: int):
        self._start(read_model(model), check_max_length(max_length))

    def _start(self, model: bytes, max_length: int) -> None:
        # Imported here: not every program that reads a config needs the library.
        import sentencepiece

        self.model = model
        self.max_length = max_length
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError("the tokenizer's bytes are not a SentencePiece model") from error

    @property
    def vocab_size(self) -> int:
        """How many ids there are, the special ones included."""
        return self._pieces.get_piece_size()

    def ids(self, caption: str) -> list[int]:
        """The caption's pieces, however many, without BOS and EOS."""
        return self._pieces.encode(valid(caption))

    def text(self, ids: list[int]) -> str:
        """The text of pieces."""
        return self._pieces.decode(ids)

    # The SentencePiece object lives in C++: worker processes rebuild it from the bytes.
    def __getstate__(self) -> dict:
        return {"model": self.model, "max_length": self.max_length}

    def __setstate__(self, state: dict) -> None:
        self._start(**state)


def train(
    captions: Iterable[str],
    vocab_size: int,
    max_length: int,
    lowercase: bool = True,
    path: Path | str | None = None,
) -> Tokenizer:
    """A tokenizer of at most `vocab_size` ids for these captions, written to `path` if given.

    The same captions in the same order give the same bytes. Small sets of captions yield fewer
    ids than asked for.
    """
    import sentencepiece

    model = io.BytesIO()
    sentences = [valid(caption) for caption in checked(captions)]
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            model_type="bpe",  # unlike unigram, it finds the words of small, repetitive sets
            character_coverage=1.0,
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
            pad_id=PAD_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            num_threads=1,  # sums of floats in one order: the same bytes every time
            minloglevel=2,
        )
    except RuntimeError as error:
        # SentencePiece puts the source line before its sentence.
        reason = str(error).rsplit("] ", 1)[-1].strip()
        raise UserError(
            f"cannot train a tokenizer with vocab_size={vocab_size} on these captions: {reason}"
        ) from error
    tokenizer = Tokenizer(model.getvalue(), max_length)
    if path is not None:
        tokenizer.save(path)
    return tokenizer
