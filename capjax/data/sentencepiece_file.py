"""A published SentencePiece model, read from its file: the text of SigLIP, SigLIP 2, T5 and Llama.

Rows are ids, EOS and padding to 64; they begin with the piece `bos` where one is named. SigLIP has
none and pads with EOS itself, so that the last token, which its text tower reads, is EOS in every
row. T5's encoder has none, either; its decoder begins with the padding.

    SigLIP      config.tokenizer = dict(name="capjax.data.sentencepiece_file", path="spiece.model")
    SigLIP 2    the same with path="gemma_tokenizer.model", clean="lower", pad="<pad>"
    T5          the same with clean="", pad="<pad>"; and bos="<pad>" for what its decoder writes
    Llama       the same with path="tokenizer.model", clean="", bos="<s>"

`clean` is what happens to a text first; the Unicode normalisation that the file asks for follows:

    lower_without_punctuation   lower case, ASCII punctuation removed, runs of spaces become one:
                                SiglipTokenizer of Transformers, for the files of SigLIP
    lower                       lower case, each character by itself (a last sigma stays the
                                ordinary one): Siglip2Tokenizer of Transformers
    lower_ascii                 A to Z become a to z and nothing else changes: the text input of
                                big_vision, with which SigLIP was trained
    ""                          nothing

A special token written out in a text ("</s>") is read as these characters, as in big_vision; so
it cannot end the row. Transformers takes it for the token unless `split_special_tokens` is set.

Sources: Zhai et al. 2023 (SigLIP, arXiv 2303.15343); Tschannen et al. 2025 (SigLIP 2, arXiv
2502.14786); big_vision, pp/ops_text.py. Ids are those of Transformers 5.23, but for texts that
split in several equally likely ways (one word over and over): it encodes "<unk>" in front of the
text and cuts it off again, which rounds the scores of SigLIP's model to another of these splits.
T5Tokenizer, too, picks another of such splits, and takes U+0085 for a space. LlamaTokenizer
(legacy=False) puts no space in front of a text that begins with one; SentencePiece, and so Llama's
training, does.
Raises `UserError` for a file that is no SentencePiece model or has no EOS, for a `pad` or `bos`
that is no piece of it and for an unknown `clean`.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from capjax.data.token_rows import TokenRows, check_max_length, read_model, valid
from capjax.errors import UserError
from capjax.special_tokens import SpecialTokens

if TYPE_CHECKING:
    import sentencepiece

MAX_LENGTH = 64
_MARK = "\u2581"  # how pieces write a space
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def make(
    captions: Callable[[int], Iterable[str]] | None = None,
    *,
    path: str,
    max_length: int = MAX_LENGTH,
    clean: str = "lower_without_punctuation",
    pad: str = "",
    bos: str = "",
) -> Tokenizer:
    """The tokenizer of the model in the file `path`; it is not trained, so captions are unread."""
    return Tokenizer(path, max_length, clean, pad, bos)


def reopen(model: bytes, *, path: str = "", **fields) -> Tokenizer:
    """What `make` made, from the bytes of the model."""
    return Tokenizer(model, **fields)


class Tokenizer(TokenRows):
    """A SentencePiece model and rows of `max_length`.

    `pad` and `bos` name pieces; without `pad` rows are filled with EOS, without `bos` they begin
    with the first word.
    """

    def __init__(
        self,
        model: bytes | str | Path,
        max_length: int = MAX_LENGTH,
        clean: str = "lower_without_punctuation",
        pad: str = "",
        bos: str = "",
    ):
        self._start(read_model(model), max_length, clean, pad, bos)

    def _start(self, model: bytes, max_length: int, clean: str, pad: str, bos: str) -> None:
        if clean not in _CLEANINGS:
            names = ", ".join(name or "''" for name in _CLEANINGS)
            raise UserError(f"tokenizer.clean must be one of {names}, not {clean!r}")
        self.model, self.clean, self.pad, self.bos = model, clean, pad, bos
        self.max_length = check_max_length(max_length, special=2 if bos else 1)
        # Said only where there is one: runs without it keep the fingerprint that they began with.
        self.options = f"clean={clean},pad={pad}" + (f",bos={bos}" if bos else "")
        self._clean = _CLEANINGS[clean]
        self._pieces = _processor(model)
        self.special_tokens = _special_tokens(self._pieces, pad, bos)

    @property
    def vocab_size(self) -> int:
        """32,000 for SigLIP's English file, 256,000 for SigLIP 2's."""
        return self._pieces.get_piece_size()

    def ids(self, caption: str) -> list[int]:
        """The caption's pieces, however many, without BOS and EOS."""
        return self._pieces.encode(self._clean(valid(caption)))

    def text(self, ids: list[int]) -> str:
        """The cleaned text of pieces."""
        return self._pieces.decode(ids)

    # The SentencePiece object lives in C++: worker processes rebuild it from the bytes.
    def __getstate__(self) -> dict:
        return {
            "model": self.model,
            "max_length": self.max_length,
            "clean": self.clean,
            "pad": self.pad,
            "bos": self.bos,
        }

    def __setstate__(self, state: dict) -> None:
        self._start(**state)


def _lower_without_punctuation(text: str) -> str:
    # In this order: what is a last sigma depends on the punctuation behind it.
    words = text.replace(_MARK, " ").lower().translate(_NO_PUNCTUATION)
    return " ".join(words.split())


def _lower(text: str) -> str:
    return "".join(map(str.lower, text))


def _lower_ascii(text: str) -> str:
    return text.translate(_ASCII_LOWER)


_CLEANINGS: dict[str, Callable[[str], str]] = {
    "lower_without_punctuation": _lower_without_punctuation,
    "lower": _lower,
    "lower_ascii": _lower_ascii,
    "": str,
}


def _processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    # Imported here: not every program that reads a config needs the library.
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise UserError(
            "the tokenizer's file is not a SentencePiece model: give the published spiece.model, "
            "sentencepiece.model or tokenizer.model, not a tokenizer.json"
        ) from error
    return pieces


def _special_tokens(
    pieces: sentencepiece.SentencePieceProcessor, pad: str, bos: str
) -> SpecialTokens:
    # The file says itself how its EOS is written, "</s>" or "<eos>", and whether it has one.
    eos = pieces.eos_id()
    if eos < 0:
        raise UserError(
            "the SentencePiece model has no end of text (a piece like </s> or <eos>), so rows "
            "cannot be ended: choose the model that the weights were published with"
        )
    padding = _named(pieces, "pad", pad, "pad with the end of the text") if pad else eos
    begin = _named(pieces, "bos", bos, "begin rows with their first word") if bos else None
    control = {i for i in range(pieces.get_piece_size()) if pieces.is_control(i)}
    never = control | {pieces.unk_id()} | ({begin} if bos else set())
    return SpecialTokens(
        pad=padding, bos=begin, eos=eos, never_written=tuple(sorted(never - {eos}))
    )


def _named(
    pieces: sentencepiece.SentencePieceProcessor, field: str, name: str, without: str
) -> int:
    piece = pieces.piece_to_id(name)
    if pieces.id_to_piece(piece) != name:  # what is unknown has the id of <unk>
        raise UserError(
            f"tokenizer.{field}={name!r} is no piece of the SentencePiece model: name one of it, "
            f"or leave it empty to {without}"
        )
    return piece
