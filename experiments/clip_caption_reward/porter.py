"""Porter's first English stemmer (Program 14, 1980), with the departures that NLTK made from it.

FineCapEval's scorer stems by NLTK's `PorterStemmer` as it is by default; `capjax.metrics.meteor`
has Porter's second stemmer, which gives other stems. NLTK's departures: a few irregular words, -ies
and -ied of words of four letters become -ie, -y becomes -i only behind a consonant that is not the
first letter, -bli, -alli, -fulli and -logi are endings of step 2, and words of two letters stay.

The measure m of a stem is how often a consonant follows a vowel in it.
"""

from __future__ import annotations

import functools
import itertools

_IRREGULAR = {
    **{"skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "innings": "inning"},
    **{"outings": "outing", "cannings": "canning"},
    **{word: word for word in ("sky", "news", "inning", "outing", "canning", "howe")},
    **{word: word for word in ("proceed", "exceed", "succeed")},
}
_STEP_2 = (
    *(("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize")),
    *(("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous")),
    *(("ization", "ize"), ("ation", "ate"), ("ator", "ate"), ("alism", "al")),
    *(("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al")),
    *(("iviti", "ive"), ("biliti", "ble"), ("fulli", "ful")),
)
_STEP_3 = (
    *(("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic")),
    *(("ful", ""), ("ness", "")),
)
_STEP_4 = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion"),
    *("ou", "ism", "ate", "iti", "ous", "ive", "ize"),
)


@functools.cache
def stem(word: str) -> str:
    """The stem of one word, in lower case."""
    word = word.lower()
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    for step in (_plural, _past, _final_y, _double_suffix, _suffix, _ending, _final_e):
        word = step(word)
    return word


def _consonants(word: str) -> list[bool]:
    """Which letters are consonants: y is one behind a vowel and in the first place."""
    found: list[bool] = []
    for i, letter in enumerate(word):
        vowel = letter in "aeiou" or (letter == "y" and i > 0 and found[i - 1])
        found.append(not vowel)
    return found


def _measure(part: str) -> int:
    kinds = _consonants(part)
    return sum(not before and after for before, after in itertools.pairwise(kinds))


def _has_vowel(part: str) -> bool:
    return not all(_consonants(part))


def _double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _consonants(word)[-1]


def _short(word: str) -> bool:
    """Consonant, vowel, consonant other than w, x and y; or a vowel and a consonant alone."""
    kinds = _consonants(word)
    if len(word) == 2:
        return kinds == [False, True]
    return kinds[-3:] == [True, False, True] and word[-1] not in "wxy"


def _plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        if word.endswith(ending) and _has_vowel(word[: -len(ending)]):
            return _mended(word[: -len(ending)])
    return word


def _mended(part: str) -> str:
    """What is left of a past or a gerund, as the word was before."""
    if part.endswith(("at", "bl", "iz")):
        return part + "e"
    if _double(part):
        return part if part[-1] in "lsz" else part[:-1]
    return part + "e" if _measure(part) == 1 and _short(part) else part


def _final_y(word: str) -> str:
    behind = len(word) > 2 and _consonants(word)[-2]
    return word[:-1] + "i" if word.endswith("y") and behind else word


def _double_suffix(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]) > 0:
        return _double_suffix(word[:-2])
    if word.endswith("logi"):  # the l belongs to what is measured
        return word[:-1] if _measure(word[:-3]) > 0 else word
    return _replaced(word, _STEP_2)


def _suffix(word: str) -> str:
    return _replaced(word, _STEP_3)


def _replaced(word: str, endings: tuple[tuple[str, str], ...]) -> str:
    for ending, other in endings:
        if word.endswith(ending):
            part = word[: -len(ending)]
            return part + other if _measure(part) > 0 else word
    return word


def _ending(word: str) -> str:
    for ending in _STEP_4:
        if word.endswith(ending):
            part = word[: -len(ending)]
            allowed = ending != "ion" or part[-1:] in ("s", "t")
            return part if allowed and _measure(part) > 1 else word
    return word


def _final_e(word: str) -> str:
    if word.endswith("e"):
        part = word[:-1]
        if _measure(part) > 1 or (_measure(part) == 1 and not _short(part)):
            word = part
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word
