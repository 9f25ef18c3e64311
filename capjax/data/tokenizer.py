"""Captions to token ids and back: SentencePiece, trained by a run on its own captions.

A caption of n pieces becomes int32 [L]: BOS w1 .. wn EOS PAD .. PAD, with L = `max_length`, so at
most L - 2 pieces fit. Case folding and the Unicode normalisation NFKC are part of the model's own
bytes: text is treated in training and in use alike.

Source: Kudo and Richardson 2018 (SentencePiece), with the byte-pair merges of Sennrich et al. 2016.
Raises `UserError` for an empty caption, a value that is no text, or a caption that is too long.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from capjax.errors import UserError
from capjax.special_tokens import BOS_ID, EOS_ID, PAD_ID, UNK_ID


class CaptionTooLong(UserError):
    """A caption with more pieces than the limit leaves room for."""


class Tokenizer:
    """A trained SentencePiece model and the length of its rows."""

    def __init__(self, model: bytes | str | Path, max_length: int):
        if max_length < 3:
            raise UserError(f"max_length={max_length} leaves no room for a word: use at least 3")
        if not isinstance(model, bytes):
            model = _read(Path(model))
        self._start(model, max_length)

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

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model's bytes: equal exactly if two tokenizers give equal ids."""
        return hashlib.sha256(self.model).hexdigest()

    def encode(self, caption: str, truncate: bool = False) -> np.ndarray:
        """int32 [L]. Too many pieces: `CaptionTooLong`, or cut before EOS with `truncate`."""
        if not isinstance(caption, str):
            raise UserError(f"a caption must be text, not {type(caption).__name__}")
        pieces = self._pieces.encode(caption)
        if not pieces:
            raise UserError("the caption is empty")
        limit = self.max_length - 2
        if len(pieces) > limit and not truncate:
            raise CaptionTooLong(
                f"the caption has {len(pieces)} tokens and tokenizer.max_length={self.max_length} "
                f"leaves room for {limit}: raise it, or choose data.long_captions='truncate'"
            )
        row = np.full(self.max_length, PAD_ID, np.int32)
        pieces = pieces[:limit]
        row[0] = BOS_ID
        row[1 : 1 + len(pieces)] = pieces
        row[1 + len(pieces)] = EOS_ID
        return row

    def encode_batch(self, captions: Sequence[str], truncate: bool = False) -> np.ndarray:
        """int32 [B,L], a row for each caption."""
        if not captions:
            return np.zeros((0, self.max_length), np.int32)
        return np.stack([self.encode(caption, truncate) for caption in captions])

    def decode(self, ids: Iterable[int]) -> str:
        """The text before the first EOS; special tokens leave no trace."""
        pieces = []
        for token in map(int, ids):
            if token == EOS_ID:
                break
            if not 0 <= token < self.vocab_size:
                raise UserError(
                    f"token id {token} is outside the vocabulary of {self.vocab_size}: "
                    "the ids come from another tokenizer"
                )
            if token not in (PAD_ID, BOS_ID):
                pieces.append(token)
        return self._pieces.decode(pieces)

    def save(self, path: Path | str) -> None:
        """Writes the model's bytes; `Tokenizer(path, max_length)` reads them."""
        Path(path).write_bytes(self.model)

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
    sentences = _checked(captions)
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


def _checked(captions: Iterable[str]) -> list[str]:
    """The captions that hold a word; UserError for one that is not text or if none is left."""
    kept = []
    for caption in captions:
        if not isinstance(caption, str):
            raise UserError(f"a caption must be text, not {type(caption).__name__}")
        if caption.strip():
            kept.append(caption)
    if not kept:
        raise UserError("cannot train a tokenizer: there are no captions")
    return kept


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the tokenizer {str(path)!r}: {error.strerror}") from error
