"""The captioner's own vocabulary with line breaks: the tokenizer of a language model that guides.

A language model that is prompted with captions, one a line, ends its own with a line break
(guiding, arXiv 2307.16686, section 3.2), so its vocabulary must have one. The vocabularies that
runs train turn line breaks into blanks, and have one id that no caption of theirs needs: the
unknown piece. Here that id is NEWLINE. Pieces, ids and bytes stay the captioner's, so that both
models' scores can be added; what the captioner does not know is left out of a text, lest it read as
a line break.

    config.tokenizer = dict(name="experiments.guiding.lines", path="RUN/tokenizer.model",
                            max_length=832)

Raises `UserError` for a tokenizer without NEWLINE or EOS, and for two vocabularies that differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from capjax.data import tokenizer
from capjax.data.token_rows import TokenRows, read_model
from capjax.errors import UserError
from capjax.special_tokens import UNK_ID

BREAK = "\n"


class Lines(tokenizer.Tokenizer):
    """A run's vocabulary; a text may have several lines."""

    newline = UNK_ID

    def ids(self, caption: str) -> list[int]:
        """The pieces of all lines, NEWLINE between them."""
        found: list[int] = []
        for number, line in enumerate(caption.split(BREAK)):
            found += [self.newline] if number else []
            found += [piece for piece in super().ids(line) if piece != UNK_ID]
        return found

    def text(self, ids: list[int]) -> str:
        """The lines of pieces."""
        lines: list[list[int]] = [[]]
        for piece in ids:
            if piece == self.newline:
                lines.append([])
            else:
                lines[-1].append(piece)
        return BREAK.join(super(Lines, self).text(line) for line in lines)


def make(
    captions: Callable[[int], Iterable[str]],
    *,
    max_length: int,
    path: str = "",
    vocab_size: int = 256,
    num_records: int = 2000,
) -> Lines:
    """The vocabulary in the file `path`; without one, trained on the captions of `num_records`."""
    if path:
        return Lines(read_model(path), max_length)
    texts = (line for text in captions(num_records) for line in text.split(BREAK) if line.strip())
    return Lines(tokenizer.train(texts, vocab_size, max_length).model, max_length)


def reopen(model: bytes, *, max_length: int, **made_with: object) -> Lines:
    """What `make` made."""
    return Lines(model, max_length)


def newline_of(rows: TokenRows) -> int:
    """The id of a line break: `newline`, or the one id of "\\n" in a published vocabulary."""
    own = getattr(rows, "newline", None)
    if own is not None:
        return own
    found = rows.ids(BREAK)
    if len(found) != 1 or found[0] in rows.special_tokens.never_written:
        raise UserError(
            "the language model's vocabulary has no NEWLINE, with which a prompted caption ends: "
            "train it with experiments.guiding.lines as its tokenizer"
        )
    return found[0]


def check_vocabularies(captioner: TokenRows, language_model: TokenRows) -> None:
    """UserError unless both have the same pieces under the same ids, EOS among them."""
    sizes = captioner.vocab_size, language_model.vocab_size
    if sizes[0] != sizes[1]:
        raise UserError(
            f"the language model's vocabulary has {sizes[1]} pieces and the captioner's "
            f"{sizes[0]}: train the language model with the captioner's tokenizer.model"
        )
    hashes = [hashlib.sha256(rows.model).hexdigest()[:12] for rows in (captioner, language_model)]
    if hashes[0] != hashes[1]:
        raise UserError(
            f"the language model's pieces (SHA-256 {hashes[1]}) are not the captioner's "
            f"({hashes[0]}): train the language model with the captioner's tokenizer.model"
        )
    for name, rows in (("captioner", captioner), ("language model", language_model)):
        eos = rows.special_tokens.eos
        if eos is None or not 0 <= eos < rows.vocab_size:
            raise UserError(f"the {name}'s vocabulary has no EOS, with which a caption ends")
