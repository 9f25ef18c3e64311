"""The tokenizer of coco-caption in Python: Penn Treebank rules, lower case, punctuation dropped.

`tokenize` gives what coco-caption's PTBTokenizer gives (Stanford CoreNLP 3.4.1 PTBTokenizer with
-preserveLines -lowerCase, then a list of punctuation removed). The rules are in `ptb_rules`; here
is the scanner, which tries at each place the rules that can begin with its character and takes the
longest match. Words are independent of their neighbours unless they hold a digit, a full stop, `<`
or a character beyond ASCII, so the tokens of each plain word are remembered: on real captions
nearly every word is one look-up. New words of letters alone need no rules either.

Brackets stay as -lrb- and the like: coco-caption's list names them in capitals, after the tokens
were put in lower case. A token may hold a no-break space ("1 1/2").

Known differences from the original, none of which a real caption has shown but the first:
- it reads on into the next caption (see `following`; quotation marks in an unclosed `<tag a="`);
- a line break inside a caption, other than \\n, shifts all its later captions by one line;
- it drops a no-break space at the very end of a line, also where that belongs to an address;
- its lower case of a capital sigma behind a digit or hyphen at the end of a word is the final one.
"""

from __future__ import annotations

import contextlib
import functools
import re

from capjax.metrics.ptb_characters import SPACE
from capjax.metrics.ptb_rules import RULES

PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_PLAIN = re.compile(r"[!-\-/:;=-~]*").fullmatch  # printable ASCII but digits, full stop and <
_PRINTABLE = re.compile(r"[!-~]*").fullmatch
_BLANKS = re.compile(f"[{SPACE}]*").match  # one piece of white space, whatever it is made of
# Words of letters alone that the rules take apart; every other one is a token as it is.
_TWO_TOKENS = frozenset(["cannot", "gonna", "wanna", "gotta", "lemme", "gimme"])
_LINE_BREAKS = re.compile("[\n\r\u2028\u2029\x0b\x0c]")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_MOST_WORDS = 1 << 17  # remembered at a time: some tens of MiB

_words: dict[str, list[str]] = {"": []}  # plain words before a blank
_endings: dict[str, list[str]] = {"": []}  # what stands last in a caption, plain or not


def tokenize(caption: str, following: str = "") -> list[str]:
    """The tokens of a caption.

    Args:
      caption: any text; line breaks count as blanks.
      following: the caption on the next line of the file. The original reads all captions as one
        text, and where a caption ends in a single letter with a full stop ("the letter P.") the
        first word of the next one decides whether it stays `p.` or becomes `p`. Scores must not
        depend on the order of images, so the metrics never give it.
    """
    *chunks, last = caption.split(" ")
    if not following:
        with contextlib.suppress(KeyError):  # every word is known: one look-up each
            tokens = [token for chunk in chunks for token in _words[chunk]]
            return tokens + _endings[last]
        tokens = []
        for chunk in chunks:
            if not _PLAIN(chunk):
                break
            tokens += _words.get(chunk) or _remember(_words, chunk, " ")
        else:
            if _PRINTABLE(last):
                return tokens + _remember(_endings, last, "\n")
    return _tokenize_with_context(caption, following)


def _tokenize_with_context(caption: str, following: str) -> list[str]:
    caption = _as_utf16(_LINE_BREAKS.sub(" ", caption))
    end = len(caption)
    text = f"{caption}\n{_as_utf16(following)}"
    tokens: list[str] = []
    place = 0
    while place < end:
        stop = text.find(" ", place, end)
        at_end = stop < 0
        stop = end if at_end else stop
        chunk = text[place:stop]
        if at_end and not following and _PRINTABLE(chunk):
            tokens += _remember(_endings, chunk, "\n")
            break
        if _PLAIN(chunk):
            tokens += _remember(_words, chunk, " ")
            place = _BLANKS(text, stop).end()
        else:
            found, place = _scan(text, place, stop)
            tokens += found
    return tokens


def _remember(known: dict[str, list[str]], chunk: str, then: str) -> list[str]:
    """The tokens of a chunk that depend on nothing but the blank or line break behind it."""
    tokens = known.get(chunk)
    if tokens is None:
        if chunk.isalpha() and chunk.lower() not in _TWO_TOKENS:
            tokens = [chunk.lower()]
        else:
            tokens, _ = _scan(chunk + then, 0, len(chunk))
        if len(known) >= _MOST_WORDS:
            known.clear()
            known[""] = []  # between two blanks
        known[chunk] = tokens
    return tokens


def _scan(text: str, place: int, stop: int) -> tuple[list[str], int]:
    """Tokens that begin in text[place:stop], and where the last one ends (maybe beyond stop)."""
    tokens = []
    while place < stop:
        longest, token_end, spell = place, place + 1, None
        for match, spelling in _rules_from(text[place]):
            found = match(text, place)
            if found is not None and found.end() > longest:
                longest, token_end, spell = found.end(), found.end(1), spelling
        if spell is not None:
            token = spell(text[place:token_end]).lower()
            if token and token not in PUNCTUATION:
                tokens.append(_as_text(token))
        place = token_end
    return tokens, place


@functools.lru_cache(maxsize=4096)
def _rules_from(character: str):
    """The rules whose text can begin with this character, in order; none for an unknown one."""
    return [(match, spell) for first, match, spell in _compiled() if first(character)]


@functools.cache
def _compiled():
    """(test of the first character, match, spelling) a rule; compiled on the first caption."""
    return [
        (re.compile(f"[{rule.first}]").match, re.compile(rule.pattern).match, rule.spell)
        for rule in RULES
    ]


def _as_utf16(text: str) -> str:
    """Characters beyond the basic plane as two surrogates each: the original counts in UTF-16."""
    if text.isascii() or not _ASTRAL.search(text):
        return text
    return "".join(map(chr, memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")))


def _as_text(token: str) -> str:
    if token.isascii():
        return token
    return token.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
