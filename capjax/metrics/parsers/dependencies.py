"""Dependency parse -> scene graph: rules on the labels of spaCy's English models.

The labels are those of ClearNLP (nsubj, dobj, prep, pobj, acl, relcl, ...), the tags those of the
Penn Treebank. What becomes what:

- objects: nouns, by lemma. A noun inside a compound is an attribute of its head ("tennis racket":
  racket, tennis). Of "a group of people" only the people are an object. Pronouns are dropped; a
  relative pronoun stands for the noun before it.
- attributes: adjectives before a noun or after a verb ("is tall", "looks happy"), numbers before a
  noun, nouns after "be" ("the man is a chef"), and verbs without any relation ("a dog sleeps"). An
  adjective of a coordination ("black and white") counts like the first one.
- relations: subject, verb and object; subject, verb with preposition, and noun ("sit on"; after
  "be" the preposition alone); noun, preposition and noun; the agent of a passive as its subject;
  owner, "have" and what is owned. Prepositions are chained ("next to", "in front of").
- Of coordinated nouns each has the part of the first one. A verb without a subject of its own has
  that of the verb or the noun on which it depends.

Everything here is a function of tokens, so that it needs no spaCy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from capjax.metrics.scene_graph import SceneGraph

# "a group of people", "lots of food": what follows "of" is meant.
QUANTITIES = {"bunch", "couple", "group", "herd", "lot", "number", "pair", "piece", "variety"}
# "in front of", "on top of": the noun belongs to the preposition.
PLACES = {
    "back",
    "bottom",
    "center",
    "centre",
    "corner",
    "edge",
    "end",
    "front",
    "middle",
    "side",
    "top",
}
RELATIVE = ("WDT", "WP")


@dataclass(frozen=True, slots=True)
class Token:
    """One word of a parsed caption.

    Attributes:
      tag: of the Penn Treebank.
      dep: label of the arc from its head.
      head: position of its head among the caption's tokens; its own if it is a root.
    """

    text: str
    lemma: str
    tag: str
    dep: str
    head: int


def scene_graph(tokens: Sequence[Token]) -> SceneGraph:
    """The graph of one caption, which may be several sentences."""
    return _Reader(tokens).graph()


class _Reader:
    """The tokens of a caption and what hangs on each of them."""

    def __init__(self, tokens: Sequence[Token]):
        self.tokens = tokens
        self.children: list[list[int]] = [[] for _ in tokens]
        for at, token in enumerate(tokens):
            if token.head != at:
                self.children[token.head].append(at)
        self.attributes: list[tuple[str, str]] = []
        self.relations: list[tuple[str, str, str]] = []

    def graph(self) -> SceneGraph:
        objects = []
        for at, token in enumerate(self.tokens):
            if self._is_noun(at):
                if not self._measured(at):
                    objects.append(self._name(at))
                    self._modifiers(at)
                self._phrases_of_noun(at)
            elif token.tag.startswith("V") and token.dep not in ("aux", "auxpass", "amod"):
                self._clause(at)
        return SceneGraph.of(objects, self.attributes, self.relations)

    def _name(self, at: int) -> str:
        return self.tokens[at].lemma.lower()

    def _below(self, at: int, *labels: str) -> list[int]:
        return [child for child in self.children[at] if self.tokens[child].dep in labels]

    def _is_noun(self, at: int) -> bool:
        """Whether it can be an object: not part of a compound nor of "in front of"."""
        token = self.tokens[at]
        return token.tag.startswith("NN") and token.dep != "compound" and not self._in_phrase(at)

    def _in_phrase(self, at: int) -> bool:
        """Whether it is the noun of "in front of something"."""
        token = self.tokens[at]
        if token.dep != "pobj" or token.lemma.lower() not in PLACES or self._below(at, "amod"):
            return False
        return any(self._of(child) for child in self._below(at, "prep"))

    def _of(self, at: int) -> list[int]:
        """What follows "of"."""
        return self._below(at, "pobj") if self._name(at) == "of" else []

    def _measured(self, at: int) -> list[int]:
        """The people of "a group of people"; none for other nouns."""
        if self._name(at) not in QUANTITIES:
            return []
        return [noun for child in self._below(at, "prep") for noun in self._of(child)]

    def _nouns(self, at: int) -> list[str]:
        """The objects that a token in the place of a noun names, with those coordinated to it."""
        token = self.tokens[at]
        if token.tag in RELATIVE:
            verb = self._clause_head(at)
            return self._nouns(self.tokens[verb].head) if verb is not None else []
        names = []
        if self._is_noun(at):
            measured = self._measured(at)
            names += [name for noun in measured for name in self._nouns(noun)]
            names += [] if measured else [self._name(at)]
        return names + [name for child in self._below(at, "conj") for name in self._nouns(child)]

    def _clause_head(self, at: int) -> int | None:
        """The verb of the relative clause that the token is in."""
        while self.tokens[at].head != at:
            at = self.tokens[at].head
            if self.tokens[at].dep == "relcl":
                return at
        return None

    def _with_conjuncts(self, at: int) -> Iterator[int]:
        yield at
        for child in self._below(at, "conj"):
            yield from self._with_conjuncts(child)

    def _modifiers(self, at: int) -> None:
        """Attributes and owners that stand before the noun."""
        name = self._name(at)
        for child in self.children[at]:
            dep = self.tokens[child].dep
            if dep == "amod":
                self._describe([name], child)
            elif dep == "compound":
                self._compound(name, child)
            elif dep == "nummod" and child < at:  # not the 5 of "number 5"
                self.attributes.append((name, self._name(child)))
            elif dep == "poss":
                self.relations += [(owner, "have", name) for owner in self._nouns(child)]

    def _compound(self, name: str, at: int) -> None:
        """Nested ones too: a "tennis ball machine"."""
        self.attributes.append((name, self._name(at)))
        for child in self._below(at, "compound"):
            self._compound(name, child)

    def _describe(self, names: list[str], at: int) -> None:
        """An adjective with those coordinated to it."""
        for word in self._with_conjuncts(at):
            self.attributes += [(name, self._name(word)) for name in names]

    def _phrases_of_noun(self, at: int) -> None:
        """ "a cat on a sofa"."""
        own = self._measured(at)
        names = [name for noun in own for name in self._nouns(noun)] or [self._name(at)]
        for words, noun in self._phrases(at):
            if noun not in own:
                self._relate(names, " ".join(words), self._nouns(noun))

    def _phrases(self, at: int) -> Iterator[tuple[list[str], int]]:
        """Prepositions on which a noun hangs below the token, and that noun."""
        for child in self.children[at]:
            token = self.tokens[child]
            if token.dep == "prep" or (token.dep == "dative" and token.tag in ("IN", "TO")):
                yield from self._phrase(child, [])
            elif token.dep in ("advmod", "acomp"):
                # "next to", "close to", "away from"
                for preposition in self._below(child, "prep"):
                    yield from self._phrase(preposition, [token.text.lower()])

    def _phrase(self, at: int, before: list[str]) -> Iterator[tuple[list[str], int]]:
        words = [*before, self.tokens[at].text.lower()]
        for child in self.children[at]:
            token = self.tokens[child]
            if token.dep == "pobj":
                if self._in_phrase(child):
                    for of in self._below(child, "prep"):
                        yield from self._phrase(of, [*words, self._name(child)])
                else:
                    yield words, child
            elif token.dep == "prep":  # "out of", "from under"
                yield from self._phrase(child, words)
            elif token.dep == "conj" and token.tag in ("IN", "TO"):  # "on a bed and under a sheet"
                yield from self._phrase(child, before)

    def _relate(self, subjects: list[str], relation: str, objects: list[str]) -> None:
        self.relations += [
            (subject, relation, target) for subject in subjects for target in objects
        ]

    def _clause(self, at: int) -> None:
        """A verb with its subject and what follows it."""
        subjects = self._subjects(at)
        verb = self._name(at)
        particle = [self._name(child) for child in self._below(at, "prt")]
        predicate = [] if verb == "be" else [verb, *particle]
        before = len(self.relations), len(self.attributes)
        passive = self._is_passive(at)
        for child in self.children[at]:
            dep = self.tokens[child].dep
            if dep == "dobj" and not passive:
                self._relate(subjects, " ".join(predicate) or verb, self._nouns(child))
            elif dep == "agent":
                for noun in self._below(child, "pobj"):
                    self._relate(self._nouns(noun), " ".join(predicate) or verb, subjects)
            elif dep in ("acomp", "oprd") and not self._below(child, "prep"):
                self._describe(subjects, child)
            elif dep == "attr" and not self._below(at, "expl"):
                self.attributes += [(s, name) for s in subjects for name in self._nouns(child)]
        for words, noun in self._phrases(at):
            self._relate(subjects, " ".join(predicate + words), self._nouns(noun))
        said_more = before != (len(self.relations), len(self.attributes))
        if predicate and not said_more and not self._below(at, "xcomp", "ccomp"):
            self.attributes += [(subject, " ".join(predicate)) for subject in subjects]

    def _is_passive(self, at: int) -> bool:
        token = self.tokens[at]
        if self._below(at, "nsubj", "nsubjpass"):
            return bool(self._below(at, "nsubjpass"))
        if token.dep == "conj" and self.tokens[token.head].tag.startswith("V"):
            return self._is_passive(token.head)
        return token.tag == "VBN" and token.dep in ("acl", "advcl")

    def _subjects(self, at: int) -> list[str]:
        own = self._below(at, "nsubj", "nsubjpass")
        if not own and self._below(at, "expl"):  # "there are two dogs on the grass"
            own = self._below(at, "attr")
        if own:
            return [name for child in own for name in self._nouns(child)]
        token = self.tokens[at]
        if token.dep in ("acl", "relcl", "xcomp", "advcl", "conj", "ccomp") and token.head != at:
            head = self.tokens[token.head]
            return self._subjects(token.head) if head.tag[:1] == "V" else self._nouns(token.head)
        return []
