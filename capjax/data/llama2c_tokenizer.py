"""The tokenizer files of llama2.c, such as that of the TinyStories models, as SentencePiece models.

A file holds, little-endian, int32 the length of the longest token, then for every token float32
score, int32 length and its bytes. Token 0 is unknown, 1 begins a text and 2 ends it; 3 to 258 are
the bytes <0x00> to <0xFF>; then come pieces, with their spaces written as spaces.

    config.tokenizer = dict(name="capjax.data.llama2c_tokenizer", path=".../tok512.bin")

A text is begun with a space and taken apart into characters; the two neighbours whose union has the
best score become one, the leftmost of equal ones, until no union is a piece; a character without
a piece becomes its bytes. That is SentencePiece's byte-pair rule, so the file is written again as
a model of that library, which is what a run keeps; rows are those of `sentencepiece_file`, with BOS
and, llama2.c having no padding, filled with EOS. Only U+2581, by which SentencePiece writes spaces,
is read otherwise: as a space, where llama2.c reads three bytes.

Sources: karpathy/llama2.c, tokenizer.py and run.c; Kudo and Richardson 2018 (SentencePiece),
sentencepiece_model.proto.
Raises `UserError` for a file that is cut short, or whose first tokens are not those above.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

from capjax.data.sentencepiece_file import MAX_LENGTH, Tokenizer
from capjax.data.token_rows import read_model
from capjax.errors import UserError

BOS = "<s>"
_SPECIAL = ("<unk>", BOS, "</s>")  # SentencePiece's names; llama2.c puts line ends around the last
_FIRST_PIECE = 259

# Of sentencepiece_model.proto: numbers of fields and of the kinds of pieces and models.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _KIND = 1, 2, 3
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_MODEL_TYPE, _BYTE_FALLBACK, _BYTE_PAIR = 3, 35, 2
_NAME, _REMOVE_EXTRA_SPACES = 1, 4


def make(
    captions: Callable[[int], Iterable[str]] | None = None,
    *,
    path: str,
    max_length: int = MAX_LENGTH,
) -> Tokenizer:
    """The tokenizer of the file `path`; it is not trained, so captions are unread."""
    return reopen(to_sentencepiece(read_model(path)), max_length=max_length)


def reopen(model: bytes, *, path: str = "", max_length: int = MAX_LENGTH) -> Tokenizer:
    """What `make` made, from its bytes, a SentencePiece model."""
    return Tokenizer(model, max_length, clean="", bos=BOS)


def to_sentencepiece(data: bytes) -> bytes:
    """The bytes of a file of llama2.c -> those of the same SentencePiece model."""
    tokens = list(_tokens(data))
    names = [text.strip(b"\n") for _, text in tokens[:_FIRST_PIECE]]
    expected = [name.encode() for name in _SPECIAL] + [b"<0x%02X>" % i for i in range(256)]
    if names != expected:
        raise UserError(
            "the tokenizer's file does not begin with <unk>, <s>, </s> and the 256 bytes: give "
            "one that llama2.c exported from a SentencePiece model, such as tok512.bin"
        )
    model = bytearray()
    for token, (score, text) in enumerate(tokens):
        kind = _NORMAL
        if token < _FIRST_PIECE:
            text = names[token]
            kind = _UNKNOWN if token == 0 else _CONTROL if token < len(_SPECIAL) else _BYTE
        text = text.replace(b" ", "\u2581".encode())
        piece = _bytes(_PIECE, text) + _float(_SCORE, score) + _integer(_KIND, kind)
        model += _bytes(_PIECES, piece)
    model += _bytes(_TRAINER, _integer(_MODEL_TYPE, _BYTE_PAIR) + _integer(_BYTE_FALLBACK, 1))
    model += _bytes(_NORMALIZER, _bytes(_NAME, b"identity") + _integer(_REMOVE_EXTRA_SPACES, 0))
    return bytes(model)


def _tokens(data: bytes) -> Iterator[tuple[float, bytes]]:
    position = 4  # behind the length of the longest token, which only sizes a buffer there
    if len(data) < position:
        raise UserError("the tokenizer's file is too short to be one of llama2.c: get it again")
    while position < len(data):
        start = position + 8
        if start > len(data):
            raise UserError("the tokenizer's file is cut short within a token: get it again")
        score, length = struct.unpack_from("<fi", data, position)
        position = start + length
        if length < 0 or position > len(data):
            raise UserError(
                "the tokenizer's file is cut short within a token, or is not one of llama2.c: "
                "get it again"
            )
        yield score, data[start:position]


# The wire format of protocol buffers: (field number << 3 | kind of value), value.
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
