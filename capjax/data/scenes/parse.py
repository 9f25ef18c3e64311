"""Reads captions back: text -> `Description`, and what a caption tells about a gallery of scenes.

The grammar is the one that `grammar.py` writes; case and punctuation are ignored. Anything else,
such as a captioner's broken output, is None.

    caption   = [opening] body [closing] {"the" looks "is" relation "the" looks}  |  tags
    body      = group [background | relation group | "and" group | "one of them" group]
              | group background group {group}                      (the list of `detailed`)
    group     = ("a" | "an" | number | nothing before a plural) looks [place {"and" place}]
    looks     = [size] [texture] [colour] (shape | "shape" | "object" | "figure")
    relation  = ["to the"] "left of" | ["to the"] "right of" | "above" | "over" | "below" | "under"
    tags      = [junk] [size] [texture] [colour] [shape] [junk]     (at least one part)

Articles, numbers and verbs must agree. In `tags` the junk is that of `alt_text`, where any digits
stand for any others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from capjax.data.scenes.description import Clause, Description, Mention, matches
from capjax.data.scenes.grammar import (
    ADJECTIVES,
    CLOSINGS,
    JUNK_AFTER,
    JUNK_BEFORE,
    KEEP_TAG,
    OPENINGS,
    OPENINGS_MANY,
    OPENINGS_ONE,
    RELATION_WORDS,
)
from capjax.data.scenes.graph import Scene
from capjax.data.scenes.mistakes import AttributeErrors, attribute_errors
from capjax.data.scenes.vocabulary import (
    ANY_SHAPE,
    ATTRIBUTE_WORDS,
    BACKGROUND_COLOURS,
    BACKGROUNDS,
    NUMBERS,
    article,
    plural,
)

__all__ = [
    "AttributeErrors",
    "Clause",
    "Description",
    "Mention",
    "attribute_errors",
    "matches",
    "mentions_attribute",
    "parse",
    "posterior",
]

_NOUNS = dict.fromkeys(ANY_SHAPE, False) | {plural(word): True for word in ANY_SHAPE}
_VERTICAL = {"top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom"}
_CENTRE = ("centre", "middle")


def _phrases(*texts: str) -> list[tuple[str, ...]]:
    """The texts as tuples of words, longest first, without the empty one."""
    return sorted({tuple(text.split()) for text in texts if text}, key=len, reverse=True)


_OPENINGS = _phrases(*OPENINGS, "this picture shows", "the image shows")
_OPENINGS_ONE = _phrases(*OPENINGS_ONE)
_OPENINGS_MANY = _phrases(*OPENINGS_MANY)
_CLOSINGS = _phrases(*CLOSINGS)
_RELATIONS = [
    (words, relation) for relation, texts in RELATION_WORDS.items() for words in _phrases(*texts)
]


def _junk(texts: tuple[str, ...]) -> list[tuple[str, ...]]:
    digits = (re.sub("#+", " # ", re.sub("[._]", " ", text.lower())) for text in texts)
    return _phrases(*digits)


_JUNK_BEFORE, _JUNK_AFTER = _junk(JUNK_BEFORE), _junk(JUNK_AFTER)


class _Mismatch(Exception):
    """The text leaves the grammar here."""


class _Reader:
    """A position in the words of a caption; every method reads its part or raises `_Mismatch`."""

    def __init__(self, words: list[str]):
        self.words = words
        self.at = 0
        self.background: str | None = None
        self.background_colour: str | None = None

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def skip(self, phrase: Sequence[str]) -> bool:
        """Steps over the phrase if it comes next."""
        if tuple(self.words[self.at : self.at + len(phrase)]) != tuple(phrase):
            return False
        self.at += len(phrase)
        return True

    def skip_any(self, phrases: Sequence[Sequence[str]]) -> bool:
        return any(self.skip(phrase) for phrase in phrases)

    def looks(self) -> tuple[dict[str, str], bool]:
        """[size] [texture] [colour] noun: ({attribute: value}, whether the noun is plural)."""
        found: dict[str, str] = {}
        for name in ADJECTIVES:
            attribute, value, _ = ATTRIBUTE_WORDS.get(self.peek(), (None, None, None))
            if attribute == name:
                found[name] = value
                self.at += 1
        noun = self.peek()
        self.at += 1
        if noun in _NOUNS:
            return found, _NOUNS[noun]
        attribute, value, many = ATTRIBUTE_WORDS.get(noun, (None, None, None))
        if attribute != "shape":
            raise _Mismatch
        return found | {"shape": value}, many

    def group(self) -> Mention:
        """A determiner that agrees, looks, and places."""
        word = self.peek()
        count, exact = 2, False
        if word in NUMBERS:
            count, exact = NUMBERS.index(word) + 1, True
            self.at += 1
        elif word in ("a", "an"):
            count = 1
            self.at += 1
            if self.peek() and article(self.peek()) != word:
                raise _Mismatch
        found, many = self.looks()
        if many != (count > 1):
            raise _Mismatch
        places = []
        while (regions := self.place(joined=bool(places))) is not None:
            places.append(regions)
        if places and len(places) != count:
            raise _Mismatch
        return Mention(**found, count=count, exact=exact, places=tuple(places))

    def place(self, joined: bool) -> frozenset[str] | None:
        """["and"] preposition "the" region ["corner" | "side"]; None if it does not come next."""
        start = self.at
        if joined and not self.skip(("and",)):
            return None
        if self.peek() in ("at", "in", "on", "near"):
            self.at += 1
            if self.skip(("the",)):
                regions = self._regions()
                if regions:
                    return regions
        self.at = start
        return None

    def _regions(self) -> frozenset[str] | None:
        if self.peek() in _CENTRE:
            self.at += 1
            return frozenset(("centre",))
        regions = []
        if self.peek() in _VERTICAL:
            regions.append(_VERTICAL[self.peek()])
            self.at += 1
        if self.peek() in ("left", "right"):
            regions.append(self.peek())
            self.at += 1
        if regions:
            self.skip(("corner",) if len(regions) == 2 else ("side",))
        return frozenset(regions) if regions else None

    def relation(self) -> str | None:
        return next((relation for words, relation in _RELATIONS if self.skip(words)), None)

    def read_background(self) -> bool:
        """ "on a" [kind] colour "background"."""
        start = self.at
        if self.skip(("on", "a")):
            kind = self.peek() if self.peek() in BACKGROUNDS else None
            self.at += kind is not None
            colour = self.peek()
            self.at += 1
            if colour in BACKGROUND_COLOURS and self.skip(("background",)):
                self.background, self.background_colour = kind, colour
                return True
        self.at = start
        return False

    def sentence(self) -> Description:
        """The whole text as a caption other than tags."""
        one, many = self.skip_any(_OPENINGS_ONE), self.skip_any(_OPENINGS_MANY)
        there = self.words[:1] == ["there"]
        if not (one or many):
            self.skip_any(_OPENINGS)
        first = self.group()
        if (one and first.count > 1) or (many and first.count == 1):
            raise _Mismatch
        clauses = []
        if self.read_background():
            clauses.append(Clause((first,)))
            listed = []
            while self.at < len(self.words) and self.peek() != "the":
                listed.append(self.group())
            if listed:
                clauses.append(Clause(tuple(listed)))
        elif relation := self.relation():
            second = self.group()
            self._only_one(first, second)
            clauses.append(Clause((first, second), ((0, relation, 1),)))
        elif self.skip(("and",)):
            clauses.append(Clause((first, self.group())))
        elif self.skip(("one", "of", "them")):
            clauses += [Clause((first,)), Clause((self.group(),))]
        else:
            clauses.append(Clause((first,)))
        if self.background_colour is None and not self.skip_any(_CLOSINGS) and there:
            self.skip(("here",))
        while self.at < len(self.words):
            clauses.append(self._relation_sentence())
        return Description(tuple(clauses), self.background, self.background_colour)

    def _only_one(self, *mentions: Mention) -> None:
        if any(mention.count > 1 for mention in mentions):
            raise _Mismatch

    def _relation_sentence(self) -> Clause:
        """ "the" looks "is" relation "the" looks."""
        mentions = []
        relation = None
        for _ in range(2):
            if not self.skip(("the",)):
                raise _Mismatch
            found, many = self.looks()
            if many:
                raise _Mismatch
            mentions.append(Mention(**found))
            if relation is None:
                relation = self.relation() if self.skip(("is",)) else None
                if relation is None:
                    raise _Mismatch
        return Clause(tuple(mentions), ((0, relation, 1),))


def _tags(words: list[str]) -> Description | None:
    """The whole text as `alt_text`."""
    left = ["#" if word.isdigit() else word for word in words]
    # Junk and tags share no word, so that taking the longest junk first is safe.
    before = next((j for j in _JUNK_BEFORE if tuple(left[: len(j)]) == j), ())
    left = left[len(before) :]
    after = next((j for j in _JUNK_AFTER if tuple(left[-len(j) :]) == j), ())
    left = left[: len(left) - len(after)]
    found: dict[str, str] = {}
    order = list(KEEP_TAG)
    for word in left:
        attribute, value, many = ATTRIBUTE_WORDS.get(word, (None, None, None))
        if attribute not in order or many or value != word:
            return None
        del order[: order.index(attribute) + 1]
        found[attribute] = value
    return Description((Clause((Mention(**found),)),)) if words else None


def _words(caption: str) -> list[str]:
    return re.findall(r"[a-z]+|[0-9]+", caption.lower())


@lru_cache(maxsize=65536)
def parse(caption: str) -> Description | None:
    """What the caption claims; None when it is outside the grammar."""
    words = _words(caption)
    try:
        return _Reader(words).sentence()
    except _Mismatch:
        return _tags(words)


def posterior(caption: str | Description, graphs: Sequence[Scene]) -> np.ndarray:
    """p(scene | caption), float64 [N]: uniform over the scenes of which the caption is true.

    All zeros when the caption does not parse or is true of no scene. With the true scene among
    `graphs`, its entry is the oracle's recall@1: the chance to pick it, knowing the caption alone.
    """
    description = parse(caption) if isinstance(caption, str) else caption
    if description is None:
        return np.zeros(len(graphs))
    fits = np.array([matches(description, scene) for scene in graphs], float)
    return fits / max(1.0, fits.sum())


def mentions_attribute(caption: str) -> bool:
    """Whether a shape, colour, size or texture of an object is named.

    Text outside the grammar counts if any of its words is such a value.
    """
    description = parse(caption)
    if description is not None:
        return description.mentions_attribute
    return any(word in ATTRIBUTE_WORDS for word in _words(caption))
