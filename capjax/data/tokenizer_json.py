"""Any published `tokenizer.json`: the tokenizers of GPT-2, Llama 3, Qwen 2 and hundreds of others.

The file holds the whole pipeline, normaliser to decoder, and the library that wrote it runs it.
What it does not say is which of its tokens begin, end and fill a row; the config does, by name:

    Qwen 2    config.tokenizer = dict(name="capjax.data.tokenizer_json", path=".../tokenizer.json",
                                      eos="<|im_end|>", pad="<|endoftext|>")
    Llama 3   the same with bos="<|begin_of_text|>", eos="<|end_of_text|>"

Without `bos` a row begins with its first word; without `pad` it is filled with EOS. The tokens that
the file adds around a text of its own accord (its template) are not added: rows have theirs.
`extra_tokens` are appended behind the vocabulary, in their order, for models whose vocabulary is
extended; each is one id wherever it stands in a text, and a word that may be written unless it is
named as `bos` or `pad`. A special token of the file that a text writes out is that token, as in
Transformers: an EOS within a caption ends it there.

Where BOS is EOS (GPT-2 has one special token for all), the row of "a dog" is E a dog E E ..; to
`decode`, an E in front of everything is BOS. What a captioner writes is read rightly, too: after an
EOS it writes padding alone.

Source: the format of Hugging Face's library tokenizers. Ids are those of Transformers 5.23 with
add_special_tokens=False.
Raises `UserError` for a file that the library cannot read, a `bos`, `eos` or `pad` that is no
token, an extra token that is one already, or if the package tokenizers is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from capjax.data.text_cleaning import INSTALL
from capjax.data.token_rows import TokenRows, check_max_length, read_model, valid
from capjax.errors import UserError
from capjax.special_tokens import SpecialTokens

MAX_LENGTH = 64


def make(
    captions: Callable[[int], Iterable[str]] | None = None,
    *,
    path: str,
    max_length: int = MAX_LENGTH,
    eos: str,
    bos: str = "",
    pad: str = "",
    extra_tokens: Sequence[str] = (),
) -> Tokenizer:
    """The tokenizer in the file `path`; it is not trained, so captions are unread."""
    return Tokenizer(path, max_length, eos=eos, bos=bos, pad=pad, extra_tokens=extra_tokens)


def reopen(model: bytes, *, path: str = "", **fields) -> Tokenizer:
    """What `make` made, from the bytes of the file."""
    return Tokenizer(model, **fields)


class Tokenizer(TokenRows):
    """A tokenizer.json and rows of `max_length`; `eos`, `bos` and `pad` name tokens.

    added_ids: the id of each of the `extra_tokens`.
    """

    def __init__(
        self,
        model: bytes | str | Path,
        max_length: int = MAX_LENGTH,
        *,
        eos: str,
        bos: str = "",
        pad: str = "",
        extra_tokens: Sequence[str] = (),
    ):
        self._start(read_model(model), max_length, eos, bos, pad, _checked(extra_tokens))

    def _start(
        self,
        model: bytes,
        max_length: int,
        eos: str,
        bos: str,
        pad: str,
        extra_tokens: tuple[str, ...],
    ) -> None:
        self.model, self.eos, self.bos, self.pad = model, eos, bos, pad
        self.extra_tokens = extra_tokens
        self.max_length = check_max_length(max_length, special=2 if bos else 1)
        self.options = json.dumps([eos, bos, pad, *extra_tokens])
        self._pieces = _pipeline(model)
        from tokenizers import AddedToken

        for token in extra_tokens:
            if self._pieces.token_to_id(token) is not None:
                raise UserError(
                    f"tokenizer.extra_tokens has {token!r}, which is a token already: leave it out"
                )
            self._pieces.add_tokens([AddedToken(token, normalized=False)])
        self.added_ids = {token: self._pieces.token_to_id(token) for token in extra_tokens}
        # Not their number: a file may leave out ids between its words and its added tokens.
        self._vocab_size = 1 + max(self._pieces.get_vocab().values(), default=-1)
        self.special_tokens = self._special_tokens()

    def _special_tokens(self) -> SpecialTokens:
        eos = self._id("eos", self.eos)
        bos = self._id("bos", self.bos) if self.bos else None
        pad = self._id("pad", self.pad) if self.pad else eos
        added = self._pieces.get_added_tokens_decoder().items()
        special = {token for token, added in added if added.special}
        if bos is not None:
            special.add(bos)
        if self.pad in self.extra_tokens:
            special.add(pad)
        return SpecialTokens(
            pad=pad, bos=bos, eos=eos, never_written=tuple(sorted(special - {eos}))
        )

    def _id(self, field: str, name: str) -> int:
        token = self._pieces.token_to_id(name)
        if token is None:
            raise UserError(
                f"tokenizer.{field}={name!r} is no token of the tokenizer.json: name one of it, or "
                "list it in tokenizer.extra_tokens"
            )
        return token

    def to_json(self) -> str:
        """A tokenizer.json that holds the extra tokens, too."""
        return self._pieces.to_str(pretty=True)

    @property
    def vocab_size(self) -> int:
        """The highest id and one; a published model may have more rows, of tokens never used."""
        return self._vocab_size

    def ids(self, caption: str) -> list[int]:
        """The caption's ids, however many, without BOS and EOS."""
        return self._pieces.encode(valid(caption), add_special_tokens=False).ids

    def text(self, ids: list[int]) -> str:
        """The text of ids, as the file's decoder puts it together."""
        return self._pieces.decode(ids, skip_special_tokens=False)

    def decode(self, ids: Iterable[int]) -> str:
        """The text before the first EOS; a BOS that is EOS, too, ends nothing where it begins."""
        ids = list(map(int, ids))
        return super().decode(ids[1:] if ids[:1] == [self.special_tokens.bos] else ids)

    # As little as possible: the bytes say the rest.
    def __getstate__(self) -> dict:
        names = ("model", "max_length", "eos", "bos", "pad", "extra_tokens")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict) -> None:
        self._start(**state)


def _pipeline(model: bytes):
    """The library's tokenizer, which neither cuts texts nor fills them up."""
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise UserError(
            f"capjax.data.tokenizer_json works with the package tokenizers: {INSTALL}"
        ) from error
    try:
        pieces = tokenizers.Tokenizer.from_buffer(model)
    except Exception as error:  # the library raises nothing narrower
        raise UserError(
            f"the tokenizer's file is no tokenizer.json that the package tokenizers reads ({error})"
            ": give a published tokenizer.json, or a newer version of that package"
        ) from error
    # Files keep what their authors last used; rows are cut and filled here.
    pieces.no_truncation()
    pieces.no_padding()
    return pieces


def _checked(extra_tokens: Sequence[str]) -> tuple[str, ...]:
    if isinstance(extra_tokens, str):
        raise UserError(
            f"tokenizer.extra_tokens must be a list of tokens, not the text {extra_tokens!r}: "
            f"write ({extra_tokens!r},)"
        )
    return tuple(extra_tokens)
