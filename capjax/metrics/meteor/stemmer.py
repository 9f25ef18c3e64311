"""Porter's second English stemmer ("Porter2"), as it was when METEOR 1.5 was released.

The algorithm is M. F. Porter's revision of 2001, described on the Snowball site. METEOR has a
Snowball compilation of about 2010. Later Snowball releases changed their English stemmer ("evening"
is no longer "even", "apologists" no longer "apologist"), so that a current library would give other
scores; hence this one, whose stems do not move.

Terms of the algorithm: R1 is what follows the first non-vowel after a vowel, R2 the same within R1.
Both are held as where they start in the word, which no step moves.
"""

from __future__ import annotations

import re

_WHOLE_WORDS = {
    **{"skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie"},
    **{"idly": "idl", "gently": "gentl", "ugly": "ugli", "early": "earli", "only": "onli"},
    "singly": "singl",
    **{word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")},
}
_KEPT_AFTER_1A = frozenset(
    ("inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed")
)
_STEP_2 = {
    **{"tional": "tion", "enci": "ence", "anci": "ance", "abli": "able", "entli": "ent"},
    **{"izer": "ize", "ization": "ize", "ational": "ate", "ation": "ate", "ator": "ate"},
    **{"alism": "al", "aliti": "al", "alli": "al", "fulness": "ful", "ousli": "ous"},
    **{"ousness": "ous", "iveness": "ive", "iviti": "ive", "biliti": "ble", "bli": "ble"},
    **{"ogi": "og", "fulli": "ful", "lessli": "less", "li": ""},
}
_STEP_3 = {
    **{"tional": "tion", "ational": "ate", "alize": "al", "icate": "ic", "iciti": "ic"},
    **{"ical": "ic", "ful": "", "ness": "", "ative": ""},
}
_STEP_4 = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ism"),
    *("ate", "iti", "ous", "ive", "ize", "ion"),
)
_LI_ENDINGS = frozenset("cdeghkmnrt")  # letters behind which -li is an ending
_DOUBLES = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")

# Y is a y that is no vowel. A short syllable closes in one consonant that is not w, x or Y.
_VOWEL = re.compile("[aeiouy]")
_REGION = re.compile("[^aeiouy]*[aeiouy]+[^aeiouy]")
_FIRST_REGION = re.compile("gener|commun|arsen|" + _REGION.pattern)
_CONSONANT_Y = re.compile("(?<=[aeiouy])y")
_SHORT_END = re.compile("(?:[^aeiouy][aeiouy][^aeiouywxY]|^[aeiouy][^aeiouy])$", re.DOTALL)


def _longest_ending(endings) -> re.Pattern:
    by_length = sorted(endings, key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(by_length)})$")


_ENDING_0 = _longest_ending(("'", "'s", "'s'"))
_ENDING_1B = _longest_ending(("eed", "eedly", "ed", "edly", "ing", "ingly"))
_ENDING_2 = _longest_ending(_STEP_2)
_ENDING_3 = _longest_ending(_STEP_3)
_ENDING_4 = _longest_ending(_STEP_4)


def stem(word: str) -> str:
    """The stem of a word in lower case."""
    if word in _WHOLE_WORDS:
        return _WHOLE_WORDS[word]
    if len(word) < 3:
        return word
    word = _mark_consonant_y(word.removeprefix("'"))
    r1, r2 = _regions(word)
    word = _step_1a(_ENDING_0.sub("", word, count=1))
    if word not in _KEPT_AFTER_1A:
        word = _step_1c(_step_1b(word, r1))
        word = _step_3(_step_2(word, r1), r1, r2)
        word = _step_5(_step_4(word, r2), r1, r2)
    return word.replace("Y", "y")


def _mark_consonant_y(word: str) -> str:
    if "y" not in word:
        return word
    if word.startswith("y"):
        word = "Y" + word[1:]
    return _CONSONANT_Y.sub("Y", word)


def _regions(word: str) -> tuple[int, int]:
    """Where R1 and R2 start; the word's length if it has none."""
    first = _FIRST_REGION.match(word)
    if not first:
        return len(word), len(word)
    second = _REGION.match(word, first.end())
    return first.end(), second.end() if second else len(word)


def _step_1a(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and _VOWEL.search(word[:-2]):
        return word[:-1]
    return word


def _step_1b(word: str, r1: int) -> str:
    ending = _ENDING_1B.search(word)
    if not ending:
        return word
    start = ending.start()
    if ending.group().startswith("ee"):
        return word[:start] + "ee" if start >= r1 else word
    if not _VOWEL.search(word, 0, start):
        return word
    word = word[:start]
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if word.endswith(_DOUBLES):
        return word[:-1]
    return word + "e" if len(word) == r1 and _SHORT_END.search(word) else word


def _step_1c(word: str) -> str:
    if len(word) > 2 and word[-1] in "yY" and word[-2] not in "aeiouy":
        return word[:-1] + "i"
    return word


def _step_2(word: str, r1: int) -> str:
    ending = _ENDING_2.search(word)
    if not ending or ending.start() < r1:
        return word
    start, before = ending.start(), word[ending.start() - 1]
    if ending.group() == "ogi" and before != "l":
        return word
    if ending.group() == "li" and before not in _LI_ENDINGS:
        return word
    return word[:start] + _STEP_2[ending.group()]


def _step_3(word: str, r1: int, r2: int) -> str:
    ending = _ENDING_3.search(word)
    if not ending or ending.start() < (r2 if ending.group() == "ative" else r1):
        return word
    return word[: ending.start()] + _STEP_3[ending.group()]


def _step_4(word: str, r2: int) -> str:
    ending = _ENDING_4.search(word)
    if not ending or ending.start() < r2:
        return word
    if ending.group() == "ion" and word[ending.start() - 1] not in "st":
        return word
    return word[: ending.start()]


def _step_5(word: str, r1: int, r2: int) -> str:
    last = len(word) - 1
    if word.endswith("e"):
        if last >= r2 or (last >= r1 and not _SHORT_END.search(word[:-1])):
            return word[:-1]
    elif word.endswith("ll") and last >= r2:
        return word[:-1]
    return word
