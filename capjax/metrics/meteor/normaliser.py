"""METEOR's normaliser for English (its option -norm): a tokenizer after that of Moses.

It separates symbols, commas, quotation marks, clitics ("dog's" -> "dog 's") and full stops, and
takes words apart at hyphens ("t-shirt" -> "t shirt"). On captions that come tokenised it changes
little, but the little matters: hyphens are frequent, and so is "dog 's", which becomes "dog ' s".

Rules apply to a whole caption, one after the other. Yet the outcome for most words does not depend
on their neighbours, so it is remembered for each such word and a caption is a few look-ups.
"""

from __future__ import annotations

import functools
import re

from capjax.metrics import meteor_files

_ALPHA = (  # letters of Western Europe, Cyrillic letters, phonetic letters
    "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017e"
    "\u0400-\u0527\ua640-\ua66e\ua67e-\ua697\u1d00-\u1d7f"
)
_CONTROL = "".join(map(chr, range(33)))  # dropped at both ends of a caption
_UNICODE_BLANKS = re.compile("[\u2000-\u200a\u202f\u205f\u3000\u00a0]")
_WORD = re.compile("[^ \t\n\r\f]+")

_SYMBOL = re.compile(rf"[^0-9{_ALPHA} \t\n\v\f\r.'`,\-‘’]")
_DOTS = re.compile(r"\.{2,}")
_SINGLE_QUOTE = re.compile("[`‘’]")
_DOUBLE_QUOTE = re.compile("[“”]|''")
_HAS_LETTER = re.compile(f"[{_ALPHA}]")


def _between(left: str, mark: str, right: str, spelling: str) -> tuple[re.Pattern, str]:
    """Replaces a mark between two characters. Both are taken: in "a'b'c" only the first splits."""
    return re.compile(f"([{left}]){mark}([{right}])"), rf"\g<1>{spelling}\g<2>"


_COMMAS = (  # every comma but one between two digits
    _between("^0-9", ",", "^0-9", " , "),
    _between("0-9", ",", "^0-9", " , "),
    _between("^0-9", ",", "0-9", " , "),
)
_HYPHENS_AND_CLITICS = (
    _between(f"0-9{_ALPHA}.", "-", f"0-9{_ALPHA}", " "),
    _between(f"^{_ALPHA}", "'", f"^{_ALPHA}", " ' "),
    _between(f"^0-9{_ALPHA}", "'", _ALPHA, " ' "),
    _between(_ALPHA, "'", f"^{_ALPHA}", " ' "),
    _between(_ALPHA, "'", _ALPHA, " '"),
    _between("0-9", "'", "s", " '"),
)

# A word is independent of its neighbours if no rule that looks at the blank before or behind it can
# apply: it may begin with a clitic's apostrophe, but otherwise neither begin nor end with a quote,
# a comma or a full stop. Control characters count as blanks at the ends of a caption only.
_INDEPENDENT = re.compile(rf"(?:'[{_ALPHA}]|[^.,'`‘’])(?:.*[^.,'`‘’])?", re.DOTALL).fullmatch
_HAS_CONTROL = re.compile(r"[\x00-\x20]").search
_MOST_WORDS = 1 << 17  # remembered at a time: some tens of MiB

_known: dict[str, tuple[str, ...]] = {}


def normalise(tokens: list[str]) -> list[str]:
    """The words of a caption that METEOR compares, from its tokens."""
    try:
        return [word for token in tokens for word in _known[token]]
    except KeyError:
        return _with_unknown(tokens)


def _with_unknown(tokens: list[str]) -> list[str]:
    if len(_known) > _MOST_WORDS:
        _known.clear()
    words: list[str] = []
    for token in tokens:
        if token not in _known:
            if not _INDEPENDENT(token) or _HAS_CONTROL(token):
                return normalise_line(" ".join(tokens))
            _known[token] = tuple(normalise_line(token))
        words += _known[token]
    return words


def normalise_line(line: str) -> list[str]:
    """The words of a caption given as one line of text in lower case."""
    text = _SYMBOL.sub(r" \g<0> ", f" {line.strip(_CONTROL)} ")
    text = _DOTS.sub(r" \g<0> ", text)
    for pattern, spelling in _COMMAS:
        text = pattern.sub(spelling, text)
    text = _DOUBLE_QUOTE.sub(' " ', _SINGLE_QUOTE.sub("'", text))
    text = text.replace("–", "-").replace("--", "-")
    for pattern, spelling in _HYPHENS_AND_CLITICS:
        text = pattern.sub(spelling, text)
    words = _WORD.findall(text)
    after = [*words[1:], ""]
    text = " ".join(map(_full_stop, words, after))
    return _WORD.findall(_UNICODE_BLANKS.sub(" ", text).strip(_CONTROL).lower())


def _full_stop(word: str, after: str) -> str:
    """Separates the full stop of a word, unless it belongs to an abbreviation."""
    if not word.endswith(".") or not word.strip("."):
        return word  # also an ellipsis and a full stop alone
    before = word[:-1]
    if "." in before and _HAS_LETTER.search(before):
        return word.replace(".", "")  # u.s. -> us
    always, before_numbers = _abbreviations()
    if before in always or "a" <= after[:1] <= "z":
        return word
    if before in before_numbers and "0" <= after[:1] <= "9":
        return word
    return f"{before} ."


@functools.cache
def _abbreviations() -> tuple[frozenset[str], frozenset[str]]:
    """Words that keep their full stop: always, and only before a number."""
    always, before_numbers = set(), set()
    for line in meteor_files.member("nonbreaking/english.prefixes").splitlines():
        word, *note = line.split()[:2] or ["#"]
        if not word.startswith("#"):
            (before_numbers if note == ["#NUMERIC_ONLY#"] else always).add(word)
    return frozenset(always), frozenset(before_numbers)
