"""What every tokenizer does alike: a caption as one row of ids of a fixed length, and back.

A caption of n ids becomes int32 [L]: BOS w1 .. wn EOS PAD .. PAD, with L = `max_length`, so at
most L - 2 ids fit; L - 1 in vocabularies without BOS, such as SigLIP's, which also pads with EOS.

A config names a tokenizer by its module (`config.tokenizer.name`), which offers
    make(captions, **fields)    from the fields of the config; captions(n) gives the captions of n
                                records of the training data, for tokenizers that are trained
    reopen(model, **fields)     from the bytes `model` that the made one keeps in its run directory,
                                so that a run needs no other file
and both give an object with the methods of `TokenRows`.
Raises `UserError` for an empty caption, a value that is no text, a caption that is too long, or an
id outside the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from capjax.errors import UserError
from capjax.special_tokens import SpecialTokens

_SHOWN = 60  # characters of a caption in a message


class CaptionTooLong(UserError):
    """A caption with more ids than the limit leaves room for."""


class TokenRows:
    """A tokenizer sets the four attributes and adds `vocab_size`, `ids` and `text`."""

    model: bytes  # what `reopen` needs
    max_length: int  # L
    special_tokens: SpecialTokens
    options: str = ""  # what the ids depend on besides `model`

    @property
    def vocab_size(self) -> int:
        """How many ids there are, the special ones included."""
        raise NotImplementedError

    def ids(self, caption: str) -> list[int]:
        """The caption's ids, however many, without BOS and EOS."""
        raise NotImplementedError

    def text(self, ids: list[int]) -> str:
        """The text of ids that hold no BOS, EOS or padding."""
        raise NotImplementedError

    @property
    def room(self) -> int:
        """How many ids fit into a row beside EOS and, where there is one, BOS."""
        return self.max_length - (1 if self.special_tokens.bos is None else 2)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model's bytes and the options: equal if two tokenizers give equal ids."""
        return hashlib.sha256(self.model + self.options.encode()).hexdigest()

    def encode(self, caption: str, truncate: bool = False) -> np.ndarray:
        """int32 [L]. Too many ids: `CaptionTooLong`, or cut before EOS with `truncate`."""
        if not isinstance(caption, str):
            raise UserError(f"a caption must be text, not {type(caption).__name__}")
        ids = self.ids(caption)
        if not ids:
            raise UserError("the caption is empty")
        limit = self.room
        if len(ids) > limit and not truncate:
            shown = caption if len(caption) <= _SHOWN else caption[:_SHOWN] + "..."
            raise CaptionTooLong(
                f"the caption {shown!r} has {len(ids)} tokens and tokenizer.max_length="
                f"{self.max_length} leaves room for {limit}: raise it, or choose "
                "data.long_captions='truncate'"
            )
        return self.row(ids[:limit])

    def row(self, ids: Sequence[int]) -> np.ndarray:
        """int32 [L] of at most `room` ids; no ids at all make BOS EOS, the empty text."""
        special = self.special_tokens
        begun = [] if special.bos is None else [special.bos]
        row = np.full(self.max_length, special.pad, np.int32)
        row[: len(begun) + len(ids) + 1] = [*begun, *ids, special.eos]
        return row

    def encode_batch(self, captions: Sequence[str], truncate: bool = False) -> np.ndarray:
        """int32 [B,L], a row for each caption."""
        if not captions:
            return np.zeros((0, self.max_length), np.int32)
        return np.stack([self.encode(caption, truncate) for caption in captions])

    def decode(self, ids: Iterable[int]) -> str:
        """The text before the first EOS; BOS and padding leave no trace."""
        special, vocab_size = self.special_tokens, self.vocab_size
        silent = {special.bos}
        if special.pad in special.never_written:  # else it is a word where it stands before EOS
            silent.add(special.pad)
        kept = []
        for token in map(int, ids):
            if token == special.eos:
                break
            if not 0 <= token < vocab_size:
                raise UserError(
                    f"token id {token} is outside the vocabulary of {vocab_size}: "
                    "the ids come from another tokenizer"
                )
            if token not in silent:
                kept.append(token)
        return self.text(kept)

    def save(self, path: Path | str) -> None:
        """Writes the model's bytes, from which the tokenizer can be made again."""
        Path(path).write_bytes(self.model)


def check_max_length(max_length: int, special: int = 2) -> int:
    """`max_length` if a row has room for a word beside `special` tokens; UserError otherwise."""
    if max_length <= special:
        raise UserError(
            f"max_length={max_length} leaves no room for a word: use at least {special + 1}"
        )
    return max_length


def valid(text: str) -> str:
    """The text with half surrogate pairs, as broken JSON holds them, become question marks."""
    return text.encode("utf-8", "replace").decode()


def read_model(model: bytes | str | Path) -> bytes:
    """The bytes themselves, or those of the file that is named; UserError if it cannot be read."""
    if isinstance(model, bytes):
        return model
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the tokenizer {str(model)!r}: {error.strerror}") from error


def checked(captions: Iterable[str]) -> list[str]:
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
