"""WordNet 3.0 as METEOR looks words up: which synsets a word form can belong to.

Two files inside METEOR's jar: `english.synsets` lists each lemma with its synsets,
`english.exceptions` each irregular form ("geese") with its lemmas. All other inflected forms go
through WordNet's rules of detachment (`morphy`, Fellbaum 1998), which strip or replace an ending.

A synset is an int: the byte offset of its record in one of WordNet 3.0's four data files, without
leading zeros. METEOR drops the part of speech, so in rare cases a noun's and a verb's synset have
the same number. Lemmas are in lower case; the words of a compound are joined with an underscore
(`hot_dog`).
"""

from __future__ import annotations

import functools

from capjax.errors import UserError
from capjax.metrics import meteor_files

# (ending, what replaces it), in WordNet's order: nouns, verbs, adjectives. METEOR stops at the
# first that gives a lemma, whatever its part of speech.
_DETACHMENTS = (
    *(("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
    *(("men", "man"), ("ies", "y")),
    *(("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", "")),
    *(("ing", "e"), ("ing", "")),
    *(("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
)


class WordNet:
    """The synsets of words.

    Args:
      lemmas: lemma -> its synsets' numbers, as written in the file (blanks between).
      exceptions: irregular form -> its lemmas.
    """

    def __init__(self, lemmas: dict[str, str], exceptions: dict[str, list[str]]):
        self._lemmas = lemmas
        self._exceptions = exceptions
        self._synsets: dict[str, frozenset[int]] = {}

    def __contains__(self, lemma: str) -> bool:
        return lemma in self._lemmas

    def synsets(self, word: str) -> frozenset[int]:
        """The synsets of the word itself and of its base forms; empty for an unknown word."""
        known = self._synsets.get(word)
        if known is None:
            lines = (self._lemmas.get(lemma, "") for lemma in (word, *self.base_forms(word)))
            known = frozenset(int(number) for line in lines for number in line.split())
            self._synsets[word] = known
        return known

    def base_forms(self, word: str) -> tuple[str, ...]:
        """The lemmas of an inflected form: those of its exception, else at most one by rule.

        A word of one or two letters or with the ending -ss is its own base form. A lemma may also
        have another base form: "better" gives "good" and "well".
        """
        irregular = self._exceptions.get(word)
        if irregular is not None:
            return tuple(dict.fromkeys(irregular))
        if len(word) <= 2 or word.endswith("ss"):
            return (word,) if word in self._lemmas else ()
        for ending, replacement in _DETACHMENTS:
            if word.endswith(ending):
                lemma = word.removesuffix(ending) + replacement
                if lemma in self._lemmas:
                    return (lemma,)
        return ()


@functools.cache
def load() -> WordNet:
    """WordNet from METEOR's data files, read once.

    Raises:
      UserError: the files are not installed (see `meteor_files`) or damaged.
    """
    lemmas = _pairs("synonym/english.synsets")
    exceptions: dict[str, list[str]] = {}
    for lemma, forms in _pairs("synonym/english.exceptions"):
        for form in forms.split():
            exceptions.setdefault(form, []).append(lemma)
    return WordNet(dict(lemmas), exceptions)


def _pairs(name: str) -> list[tuple[str, str]]:
    """The records of a file in which each takes two lines."""
    lines = meteor_files.member(name).splitlines()
    if not lines or len(lines) % 2:
        raise UserError(
            f"{name} in METEOR's {meteor_files.JAR} ends amid a record: install the jar again"
        )
    return list(zip(lines[::2], lines[1::2], strict=True))
