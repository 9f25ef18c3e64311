"""F-score over the tuples of scene graphs: SPICE's scoring, on the graphs of any parser.

Anderson et al., "SPICE: Semantic Propositional Image Caption Evaluation", ECCV 2016, section 3.
Values of another parser are not SPICE and must never be reported as such: this is `tuple_f`.

The same as SPICE, checked against its program on hand-made graphs:
- An image's references make one graph, the candidate another. While tuples are added (relations,
  attributes, objects of one caption after the other), an object joins the one whose synsets overlap
  most with its own (intersection over union), attributes of one object and relations between the
  same two objects join the first that shares a synset. What is joined has the words and the synsets
  of all its parts. A leading "be " of a relation is dropped.
- A candidate tuple matches if some reference tuple of its length has, at each place, a word or a
  synset in common with it. One reference tuple may match several candidate tuples.
- With m matched of c candidate tuples and r reference tuples, precision is m / c, recall m / r and
  F1 2m / (c + r); the corpus value is the mean over images. Since recall counts candidate tuples,
  F1 can exceed 1 where several of them match one joined tuple.
- F1 is 0 where either side has no tuples, also where both have none. The F1 of a kind of tuple
  (`tuple_f_parts`) is not a number where the references have none, and such images do not count.
- `cardinality` and `colour` are the attributes in `NUMBERS` and `COLOURS` that were not joined with
  another word: "gray" joined with "grey" is no colour.

Not the same as SPICE:
- The parser, so what is an object, an attribute and a lemma (SPICE: the Stanford scene-graph parser
  with further rules). Captions are given to it as tokens joined by spaces.
- Ties: SPICE takes any of several equally good partners, this takes the first.
- SPICE's sub-score of sizes, which rests on a list of adjectives of its own, is not here.

Legend: N images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from capjax.metrics.measure import Measure, mean_of
from capjax.metrics.references import Candidates, References
from capjax.metrics.scene_graph import Parser, SceneGraph, parse

Synsets = Callable[[str], Collection[int]]  # a word, with "_" for spaces -> its sets of synonyms

NUMBERS = {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"}
COLOURS = {"black", "blue", "brown", "gray", "green", "grey", "orange", "pink", "purple", "red"}
COLOURS |= {"beige", "cream", "dark", "light", "maroon", "violet", "white", "yellow"}
PARTS = ("object", "attribute", "relation", "cardinality", "colour")


def no_synonyms(word: str) -> frozenset[int]:
    """`synsets` for matching by equality alone."""
    return frozenset()


def tuple_f(candidates: Candidates, parser: Parser, synsets: Synsets | None = None) -> Measure:
    """Tuple F1 of each image; the corpus value is their mean.

    Args:
      candidates: one caption an image.
      parser: captions -> scene graphs.
      synsets: which words are synonyms: two words are if they share one; by default WordNet's.

    Raises:
      UserError: WordNet is needed and not there; a parser that breaks its interface.
    """
    counts = _counts(candidates, parser, synsets)
    return mean_of(_f1(counts[:, 0]))


def tuple_f_parts(
    candidates: Candidates, parser: Parser, synsets: Synsets | None = None
) -> dict[str, Measure]:
    """F1 over the tuples of one kind, by the names in `PARTS`; arguments as `tuple_f`.

    An image whose references have no such tuple is NaN and does not count in the corpus value,
    which is NaN if no image counts.
    """
    counts = _counts(candidates, parser, synsets)
    measures = {}
    for column, part in enumerate(PARTS, start=1):
        defined = counts[:, column, 2] > 0
        measures[part] = _mean_where(defined, _f1(counts[:, column]))
    return measures


@dataclass(slots=True, eq=False)
class _Concept:
    """A word or several that were joined as synonyms."""

    words: set[str]
    synsets: set[int]

    def similar(self, other: _Concept) -> bool:
        return not (self.synsets.isdisjoint(other.synsets) and self.words.isdisjoint(other.words))

    def similarity(self, other: _Concept) -> float:
        """1 with a word in common, else intersection over union of the synsets."""
        if not self.words.isdisjoint(other.words):
            return 1.0
        shared = len(self.synsets & other.synsets)
        return shared / len(self.synsets | other.synsets) if shared else 0.0

    def join(self, other: _Concept) -> None:
        self.words |= other.words
        self.synsets |= other.synsets


_Tuple = tuple[_Concept, ...]


@dataclass(slots=True)
class _Joined:
    """The graphs of one or several captions, with synonyms joined."""

    synsets: Synsets
    objects: list[_Concept] = field(default_factory=list)
    attributes: list[tuple[_Concept, _Concept]] = field(default_factory=list)
    relations: list[tuple[_Concept, _Concept, _Concept]] = field(default_factory=list)

    def add(self, graph: SceneGraph) -> None:
        for subject, relation, target in graph.relations:
            ends = self._object(subject), self._object(target)
            concept = self._concept(relation.removeprefix("be "))
            between = [r for s, r, t in self.relations if (s, t) == ends]
            if not _join_first(concept, between):
                self.relations.append((ends[0], concept, ends[1]))
        for name, attribute in graph.attributes:
            owner = self._object(name)
            concept = self._concept(attribute)
            if not _join_first(concept, [a for o, a in self.attributes if o is owner]):
                self.attributes.append((owner, concept))
        for name in graph.objects:
            self._object(name)

    def tuples(self) -> list[_Tuple]:
        return [*((concept,) for concept in self.objects), *self.attributes, *self.relations]

    def _concept(self, words: str) -> _Concept:
        return _Concept({words}, set(self.synsets(words.replace(" ", "_"))))

    def _object(self, name: str) -> _Concept:
        """The object that the name belongs to, which may be new."""
        concept = self._concept(name)
        nearest = max(self.objects, key=concept.similarity, default=None)
        if nearest is None or not concept.similarity(nearest):
            self.objects.append(concept)
            return concept
        nearest.join(concept)
        return nearest


def _join_first(concept: _Concept, known: Iterable[_Concept]) -> bool:
    """Joins it to the first similar one; whether there was one."""
    known = list(known)
    same = [other for other in known if concept.words == other.words]
    for other in same or known:
        if concept.similar(other):
            other.join(concept)
            return True
    return False


def _joined_tuples(graphs: Iterable[SceneGraph], synsets: Synsets) -> list[_Tuple]:
    joined = _Joined(synsets)
    for graph in graphs:
        joined.add(graph)
    return joined.tuples()


@dataclass(frozen=True)
class _ReferenceTuples:
    """References -> the tuples of each image; equal for equal parsers, for `References.once`."""

    parser: Parser
    synsets: Synsets

    def __call__(self, references: References) -> list[list[_Tuple]]:
        texts = [" ".join(tokens) for captions in references.tokens for tokens in captions]
        graphs = parse(self.parser, texts)
        stop = references.first + references.captions_per_image
        return [
            _joined_tuples(graphs[begin:end], self.synsets)
            for begin, end in zip(references.first, stop, strict=True)
        ]


def _counts(candidates: Candidates, parser: Parser, synsets: Synsets | None) -> np.ndarray:
    """Tuples matched, of the candidate, of the references; of all kinds, then PARTS: [N, 6, 3]."""
    synsets = synsets or _wordnet()
    references = candidates.references.once(_ReferenceTuples(parser, synsets))
    graphs = parse(parser, [" ".join(tokens) for tokens in candidates.tokens])
    counts = np.zeros((len(graphs), 1 + len(PARTS), 3))
    for row, graph, known in zip(counts, graphs, references, strict=True):
        _count(_joined_tuples([graph], synsets), known, row)
    return counts


def _count(candidate: Sequence[_Tuple], known: Sequence[_Tuple], row: np.ndarray) -> None:
    columns = {part: column for column, part in enumerate(PARTS, start=1)}

    def add(parts: _Tuple, what: int) -> None:
        for column in (0, *(columns[part] for part in _parts(parts))):
            row[column, what] += 1

    # A part's tuples match among themselves only. It matters where "red" meets a joined "red/ruby",
    # which is an attribute but no colour.
    for parts in known:
        add(parts, 2)
    for parts in candidate:
        add(parts, 1)
        found = [other for other in known if _match(parts, other)]
        row[0, 0] += bool(found)
        for part in _parts(parts):
            row[columns[part], 0] += any(part in _parts(other) for other in found)


def _match(first: _Tuple, second: _Tuple) -> bool:
    return len(first) == len(second) and all(
        one.similar(other) for one, other in zip(first, second, strict=True)
    )


def _parts(parts: _Tuple) -> list[str]:
    """The kinds that a tuple is of."""
    kinds = [PARTS[len(parts) - 1]]
    if len(parts) == 2 and len(parts[1].words) == 1:
        (word,) = parts[1].words
        kinds += ["cardinality"] if word in NUMBERS else ["colour"] if word in COLOURS else []
    return kinds


def _f1(counts: np.ndarray) -> np.ndarray:
    """(matched, candidate's, references') [N, 3] -> [N]."""
    total = counts[:, 1] + counts[:, 2]
    return np.divide(2 * counts[:, 0], total, out=np.zeros(len(counts)), where=total > 0)


def _mean_where(defined: np.ndarray, values: np.ndarray) -> Measure:
    def corpus(weights: np.ndarray) -> float:
        weights = weights * defined
        return float(weights @ values / weights.sum()) if weights.any() else float("nan")

    return Measure(np.where(defined, values, np.nan), corpus)


@functools.cache
def _wordnet() -> Synsets:
    # Imported here: its data is an optional package, which exact matching does without.
    from capjax.metrics import wordnet

    return wordnet.load().synsets
