"""CLIP's tokenizer: byte-level byte-pair encoding with an end-of-word mark, id for id.

A cleaned text (`capjax.data.text_cleaning`) is split into words, single digits, clitics ('s, 't,
..) and runs of other signs. A word's UTF-8 bytes are its first symbols, the last one marked as the
word's end; then the pair of neighbours that the merges list first becomes one symbol, everywhere in
the word, until no pair is in the list. Ids:

    0 .. 255        a byte (printable ones of Latin-1 first)
    256 .. 511      the same at the end of a word
    512 + k         merge number k, 48,894 of them
    49406, 49407    start and end of the text; written out, "<|startoftext|>", they are these too

So the later a merge, the higher its id, and the pair to merge first is the one of the lowest id.
Rows are SOT ids EOT and zeros; 0 is also the sign "!" inside a word. The merges are those of
`bpe_simple_vocab_16e6.txt.gz` of openai/CLIP, or the `merges.txt` of a converted model, or those
in its `tokenizer.json`.

    config.tokenizer = dict(name="capjax.data.clip_bpe", path=".../bpe_simple_vocab_16e6.txt.gz")

Sources: Radford et al. 2021 (CLIP, arXiv 2103.00020, section 2.4) and openai/CLIP,
clip/simple_tokenizer.py; Sennrich et al. 2016. OpenCLIP gives the same ids, but for a text that
writes a special token out: there it is spelt "<start_of_text>".
Raises `UserError` for a file that holds no merges, for a tokenizer.json of another tokenizer, or if
the packages ftfy or regex are missing.
"""

from __future__ import annotations

import functools
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from capjax.data import text_cleaning
from capjax.data.token_rows import TokenRows, check_max_length, read_model
from capjax.errors import UserError
from capjax.special_tokens import SpecialTokens

NUM_MERGES = 48_894
START, END = "<|startoftext|>", "<|endoftext|>"
_PARTS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_WORD_END = "</w>"
_FIRST_MERGE = 512
_REMEMBERED = 2**17  # words: nearly all that are met twice

# Byte of id 0 .. 255: printable Latin-1 in order, then the others in order.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE_OF_ID = [*_PRINTABLE, *(byte for byte in range(256) if byte not in _PRINTABLE)]
_ID_OF_BYTE = {byte: token for token, byte in enumerate(_BYTE_OF_ID)}


def make(
    captions: Callable[[int], Iterable[str]] | None = None,
    *,
    path: str,
    max_length: int = 77,
    clean: str = "lower",
    num_merges: int = NUM_MERGES,
) -> Tokenizer:
    """The tokenizer of the merges in the file `path`; it is not trained, so captions are unread."""
    return Tokenizer(path, max_length, clean, num_merges)


def reopen(model: bytes, *, path: str = "", **fields) -> Tokenizer:
    """What `make` made, from the merges themselves."""
    return Tokenizer(model, **fields)


class Tokenizer(TokenRows):
    """CLIP's tokenizer with rows of `max_length`; `clean` names how texts are cleaned."""

    def __init__(
        self,
        model: bytes | str | Path,
        max_length: int = 77,
        clean: str = "lower",
        num_merges: int = NUM_MERGES,
    ):
        self._start(_first_merges(read_model(model), num_merges), max_length, clean)

    def _start(self, model: bytes, max_length: int, clean: str) -> None:
        self.model, self.clean = model, clean
        self.max_length = check_max_length(max_length)
        self.options = clean
        self._clean = text_cleaning.by_name(clean)
        self._find_parts = _splitter()
        self._merges, self._bytes = _vocabulary(model)
        start, end = len(self._bytes), len(self._bytes) + 1
        self.special_tokens = SpecialTokens(pad=0, bos=start, eos=end, never_written=(start,))
        self._written_out = {START: (start,), END: (end,)}
        # Threads share it; of one process, because it lives with the object.
        self._word_ids = functools.lru_cache(_REMEMBERED)(self._merge_word)

    @property
    def vocab_size(self) -> int:
        """49,408 for CLIP."""
        return len(self._bytes) + 2

    def ids(self, caption: str) -> list[int]:
        """The caption's ids, however many, without those of start and end."""
        return [
            token
            for part in self._find_parts(self._clean(caption))
            for token in self._word_ids(part)
        ]

    def text(self, ids: list[int]) -> str:
        """The cleaned text, with a space after every word, clitic and sign."""
        joined = b"".join(self._bytes[token] for token in ids)
        return joined.decode("utf-8", errors="replace").strip()

    def _merge_word(self, word: str) -> tuple[int, ...]:
        if word in self._written_out:
            return self._written_out[word]
        symbols = [_ID_OF_BYTE[byte] for byte in word.encode()]
        symbols[-1] += 256
        none = self.vocab_size
        while len(symbols) > 1:
            found = [self._merges.get(pair, none) for pair in itertools.pairwise(symbols)]
            merged = min(found)
            if merged == none:
                break
            symbols = _replace(symbols, found, merged)
        return tuple(symbols)

    # Rebuilt from the bytes: a cache of bound methods cannot be pickled, nor need it be.
    def __getstate__(self) -> dict:
        return {"model": self.model, "max_length": self.max_length, "clean": self.clean}

    def __setstate__(self, state: dict) -> None:
        self._start(**state)


def _replace(symbols: list[int], found: list[int], merged: int) -> list[int]:
    """The symbols with each pair that gives `merged` replaced, from the left, none twice."""
    out, position = [], 0
    while position < len(symbols):
        if position < len(found) and found[position] == merged:
            out.append(merged)
            position += 2
        else:
            out.append(symbols[position])
            position += 1
    return out


def _splitter() -> Callable[[str], list[str]]:
    try:
        import regex
    except ModuleNotFoundError as error:
        raise UserError(
            f"capjax.data.clip_bpe splits texts with the package regex: {text_cleaning.INSTALL}"
        ) from error
    specials = "|".join(map(regex.escape, (START, END)))
    return regex.compile(f"{specials}|{_PARTS}", regex.IGNORECASE).findall


def _first_merges(model: bytes, count: int) -> bytes:
    """A heading and `count` merges, a line each: files hold more, or come compressed."""
    if model[:2] == b"\x1f\x8b":
        try:
            model = gzip.decompress(model)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"the file of merges is damaged: {error}; get it again") from error
    if model.lstrip()[:1] == b"{":
        model = _of_tokenizer_json(model)
    lines = model.split(b"\n")
    if b"#version" not in lines[0]:
        raise UserError(
            "the file of merges does not begin with a line #version: give CLIP's "
            "bpe_simple_vocab_16e6.txt.gz, a merges.txt or a tokenizer.json"
        )
    merges = [line for line in lines[1 : 1 + count] if line.strip()]
    if len(merges) < count:
        raise UserError(
            f"the file of merges has {len(merges)} of them and tokenizer.num_merges={count}: "
            "it is cut short or belongs to another tokenizer"
        )
    return b"\n".join([b"#version: 0.2", *merges])


def _of_tokenizer_json(data: bytes) -> bytes:
    """The merges in a tokenizer.json, under a heading; each is there as a text or as a pair."""
    try:
        model = json.loads(data)["model"]
        kind, end, merges = model["type"], model["end_of_word_suffix"], model["merges"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the tokenizer.json holds no merges of CLIP's kind ({error!r}): give CLIP's own"
        ) from error
    if (kind, end) != ("BPE", _WORD_END):
        raise UserError(
            f"the tokenizer.json is not CLIP's: it is of the kind {kind} and ends words with "
            f"{end!r}, not BPE and {_WORD_END!r}"
        )
    lines = (merge if isinstance(merge, str) else " ".join(merge) for merge in merges)
    return "\n".join(["#version: 0.2", *lines]).encode()


def _vocabulary(model: bytes) -> tuple[dict[tuple[int, int], int], list[bytes]]:
    """(the id that a pair of ids merges to, the bytes of each id with a space for a word's end)."""
    spelling = [*map(chr, _PRINTABLE), *(chr(256 + i) for i in range(256 - len(_PRINTABLE)))]
    ids = {character: token for token, character in enumerate(spelling)}
    ids |= {character + _WORD_END: 256 + token for character, token in ids.items()}
    texts = [bytes([byte]) for byte in _BYTE_OF_ID]
    texts += [text + b" " for text in texts]
    merges = {}
    for rank, line in enumerate(model.decode("utf-8", errors="replace").split("\n")[1:]):
        pair = line.split()
        if len(pair) != 2 or pair[0] not in ids or pair[1] not in ids:
            raise UserError(
                f"merge number {rank} of the tokenizer, {line!r}, does not join two known "
                "symbols: the file is damaged or belongs to another tokenizer"
            )
        joined = "".join(pair)
        if joined in ids:
            raise UserError(f"merge number {rank} of the tokenizer, {line!r}, is there twice")
        left, right = ids[pair[0]], ids[pair[1]]
        ids[joined] = merges[left, right] = _FIRST_MERGE + rank
        texts.append(texts[left] + texts[right])
    return merges, texts
