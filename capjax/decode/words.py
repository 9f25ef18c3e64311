"""Words as the tokens that write them: what captions must contain, or must not.

A word has several spellings in tokens: as a text begins with it or behind a space, and with a
capital where a sentence begins. Which tokens go on with the word before them is found out by
writing them behind one. Only letters of scripts that have capitals, and digits, go on: in Chinese
or Hindi every token may begin a word.

Letters: V vocabulary.
Raises `UserError` for a text that has no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.data.token_rows import TokenRows
from capjax.errors import UserError

Phrase = str | Sequence[str]  # one text, or alternatives of which any will do
_BEFORE = "a"  # a word that any vocabulary of letters has


def spellings(tokenizer: TokenRows, phrase: Phrase) -> tuple[tuple[int, ...], ...]:
    """The tokens of each way to write a phrase, every one once."""
    texts = [phrase] if isinstance(phrase, str) else phrase
    before = tokenizer.ids(_BEFORE)
    found: dict[tuple[int, ...], None] = {}
    for form in (form for text in texts for form in _forms(text)):
        behind = tokenizer.ids(f"{_BEFORE} {form}")
        if behind[: len(before)] == before:
            found[tuple(behind[len(before) :])] = None
        found[tuple(tokenizer.ids(form))] = None
    if not found or () in found:
        raise UserError(f"the phrase {phrase!r} has no tokens: name words")
    return tuple(found)


def banned(tokenizer: TokenRows, words: Sequence[Phrase]) -> tuple[tuple[int, ...], ...]:
    """`Options.banned` for words: all their spellings. A longer word that begins with the same
    tokens is banned with them."""
    return tuple(dict.fromkeys(way for word in words for way in spellings(tokenizer, word)))


def joining(tokenizer: TokenRows) -> np.ndarray:
    """bool [V]: the tokens that go on with a word that they stand behind, as "ing" does."""
    special = tokenizer.special_tokens
    before = tokenizer.ids(_BEFORE)
    begun = tokenizer.text(before)
    joins = np.zeros(tokenizer.vocab_size, bool)
    for token in set(range(len(joins))) - {special.bos, special.eos, *special.never_written}:
        text = tokenizer.text([*before, token])
        added = text[len(begun) : len(begun) + 1]
        joins[token] = text.startswith(begun) and _of_a_word(added)
    return joins


def _forms(text: str) -> tuple[str, ...]:
    text = text.strip()
    return (text, text[:1].upper() + text[1:])


def _of_a_word(letter: str) -> bool:
    return letter.isdigit() or letter.upper() != letter.lower()
