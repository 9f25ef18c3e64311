"""Which objects a caption mentions: a vocabulary of names and synonyms, longest match first.

A vocabulary is {object: [synonyms]}; a synonym may be several words. A word of a caption matches
one of the vocabulary as it stands or in its singular (`plurals`): "dogs" matches "dog", but "glass"
does not match "glasses", which may be another object. At each word the longest phrase that starts
there counts, and what it covers counts once: "two Hot Dogs" mentions "hot dog" and not "dog".

Two rules keep words from naming the wrong object; both belong to a vocabulary, as in Rohrbach et
al., "Object Hallucination in Image Captioning", EMNLP 2018:
  compounds  {phrase: the word it stands for, or None for no object}. Theirs let "baby bear" be the
             bear and not the person "baby", a "passenger train" the train, a "toilet seat" the
             toilet and a "bow tie" the tie; "home plate" is no plate.
  unless     {word: other word}: the first names nothing in a caption with the second. Theirs drop
             "seat", which elsewhere is a chair, beside "toilet".

File formats, all JSON: the vocabulary is {object: [synonyms]}; rules are {"compounds": {...},
"unless": {...}}, each optional; annotations are {image id: [objects]}.
"""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from capjax.errors import UserError
from capjax.metrics import ptb
from capjax.metrics.caption_files import read_json
from capjax.metrics.plurals import singular

Phrase = tuple[str, ...]


class Mention(NamedTuple):
    words: str  # as they stand in the caption
    object: str


class ObjectVocabulary:
    """Finds mentions of objects.

    Attributes:
      objects: the names, in the order given.
    """

    def __init__(
        self,
        objects: Mapping[str, Sequence[str]],
        *,
        compounds: Mapping[str, str | None] | None = None,
        unless: Mapping[str, str] | None = None,
    ):
        """See the module's text. An object's name is one of its synonyms without being listed.

        Raises:
          UserError: no objects, a name or synonym without a word, a synonym of two objects, or a
            rule about a word that the vocabulary lacks.
        """
        if not objects:
            raise UserError("the object vocabulary is empty: give at least one object")
        self.objects = tuple(objects)
        self._object: dict[Phrase, str] = {}
        for name, synonyms in objects.items():
            if isinstance(synonyms, str) or not isinstance(synonyms, Sequence):
                raise UserError(
                    f"the synonyms of {name!r} are a {type(synonyms).__name__}: give a list"
                )
            for synonym in (name, *synonyms):
                known = self._object.setdefault(_phrase(synonym), name)
                if known != name:
                    raise UserError(
                        f"{synonym!r} names both {known!r} and {name!r}: keep it with one of them"
                    )
        # What a phrase stands for: itself, or the word of a compound, or nothing.
        self._meaning: dict[Phrase, Phrase | None] = {phrase: phrase for phrase in self._object}
        for compound, word in (compounds or {}).items():
            self._meaning[_phrase(compound)] = None if word is None else self._known(word)
        self._unless = {
            self._known(word): self._known(other) for word, other in (unless or {}).items()
        }
        self._lengths: dict[str, set[int]] = {}  # of the phrases that begin with a word
        for phrase in self._meaning:
            self._lengths.setdefault(phrase[0], set()).add(len(phrase))

    @classmethod
    def load(
        cls, vocabulary: str | pathlib.Path, rules: str | pathlib.Path | None = None
    ) -> ObjectVocabulary:
        """Reads a vocabulary file and perhaps one of rules; formats in the module's text.

        Raises:
          UserError: a missing file, one that is not such JSON, or an unknown rule.
        """
        extra = _read_object(rules) if rules is not None else {}
        unknown = set(extra) - {"compounds", "unless"}
        if unknown:
            raise UserError(f"{rules} has {min(unknown)!r}: rules are 'compounds' and 'unless'")
        for name, rule in extra.items():
            if not isinstance(rule, dict):
                raise UserError(f"{name!r} of {rules} is no JSON object: give {{phrase: word}}")
        return cls(_read_object(vocabulary), **extra)

    def object_of(self, name: str) -> str:
        """The object that a name or synonym means.

        Raises:
          UserError: the vocabulary lacks it.
        """
        return self._object[self._known(name)]

    def mentions(self, tokens: Sequence[str]) -> list[Mention]:
        """What a tokenised caption mentions, in its order, each as often as it stands there."""
        found: list[tuple[Phrase, Mention]] = []
        place = 0
        while place < len(tokens):
            phrase = self._longest(tokens, place)
            meaning = self._meaning[phrase] if phrase else None
            if meaning is not None:
                words = " ".join(tokens[place : place + len(phrase)])
                found.append((meaning, Mention(words, self._object[meaning])))
            place += max(len(phrase), 1)
        present = {meaning for meaning, _ in found}
        return [mention for word, mention in found if self._unless.get(word) not in present]

    def _longest(self, tokens: Sequence[str], place: int) -> Phrase:
        """The longest phrase of the vocabulary that starts here, () if none does."""
        first = tokens[place]
        lengths = self._lengths.get(first, set()) | self._lengths.get(singular(first), set())
        for length in sorted(lengths, reverse=True):
            phrase = _listed(tokens[place : place + length], self._meaning)
            if phrase:
                return phrase
        return ()

    def _known(self, word: str) -> Phrase:
        phrase = _listed(_phrase(word), self._object)
        if not phrase:
            raise UserError(
                f"{word!r} is no object or synonym of the vocabulary: add it or correct the name"
            )
        return phrase


def load_annotations(path: str | pathlib.Path) -> dict[str, list[str]]:
    """Reads {image id: [objects]}.

    Raises:
      UserError: a missing file, one that is not such JSON, or an id that stands twice.
    """
    annotations = _read_object(path)
    for image_id, names in annotations.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"image {image_id!r} of {path} has no list of names: give [objects]")
    return annotations


def annotated_objects(
    annotations: Mapping[Hashable, Sequence[str]],
    ids: Sequence[Hashable],
    vocabulary: ObjectVocabulary,
) -> list[set[str]]:
    """The annotated objects of each image; a JSON file's ids are strings, so 7 also finds "7".

    Raises:
      UserError: an image without an entry, or a name that the vocabulary lacks.
    """
    objects = []
    for image_id in ids:
        names = annotations.get(image_id, annotations.get(str(image_id)))
        if names is None:
            raise UserError(
                f"image {image_id!r} has no annotated objects: give it a list, [] if it shows none"
            )
        objects.append({vocabulary.object_of(name) for name in names})
    return objects


def _listed(words: Sequence[str], phrases: Mapping[Phrase, object]) -> Phrase:
    """The phrase that these words are, each as it stands if possible or in its singular, or ()."""
    for phrase in itertools.product(*((word, singular(word)) for word in words)):
        if phrase in phrases:
            return phrase
    return ()


def _phrase(text: str) -> Phrase:
    phrase = tuple(ptb.tokenize(text)) if isinstance(text, str) else ()
    if not phrase:
        raise UserError(f"{text!r} in the object vocabulary has no word: give a name")
    return phrase


def _read_object(path: str | pathlib.Path) -> dict:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}: give a JSON object {{...}}")
    return content
