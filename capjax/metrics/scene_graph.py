"""Scene graphs of captions, and how the parsers that make them are plugged in.

A parser is a module that offers `Parser`, named by import path like every other plug-in:

    parser = load_parser("capjax.metrics.parsers.spacy", model="en_core_web_sm")
    graphs = parse(parser, ["a brown dog chases two cats on the grass"])

    parser.name                      a short label, which goes into the names of results
    parser(captions)                 one `SceneGraph` a caption, in their order

A graph is three lists of tuples without repetitions, in the order of mention: the order decides
which of several synonyms are merged first (`tuple_f`). There is one object a name, as in SPICE: "a
red car beside a blue car" is one `car` that is red and blue and beside itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from capjax.config import instantiate
from capjax.errors import UserError


@dataclass(frozen=True, slots=True)
class SceneGraph:
    """What a caption speaks of; `of` makes one from words as they come.

    Attributes:
      objects: names of objects, lower-cased lemmas, each once.
      attributes: (object, attribute).
      relations: (subject, relation, object). Both of these name only objects that are in `objects`.
    """

    objects: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    relations: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def of(
        cls,
        objects: Iterable[str] = (),
        attributes: Iterable[tuple[str, str]] = (),
        relations: Iterable[tuple[str, str, str]] = (),
    ) -> SceneGraph:
        """Lower-cases, drops repetitions, and adds the objects that only tuples name.

        Raises:
          UserError: a tuple of another length, or an element that is no word.
        """
        attributes = _clean(attributes, 2)
        relations = _clean(relations, 3)
        named = [name for (name,) in _clean(((name,) for name in objects), 1)]
        named += [owner for owner, _ in attributes]
        named += [end for subject, _, target in relations for end in (subject, target)]
        return cls(tuple(dict.fromkeys(named)), attributes, relations)


class Parser(Protocol):
    """Captions -> scene graphs."""

    name: str

    def __call__(self, captions: Sequence[str]) -> list[SceneGraph]: ...


def load_parser(path: str, **fields: object) -> Parser:
    """The parser that the module at the import path `path` offers, made with `fields`.

    Raises:
      UserError: no such module, none named `Parser` in it, or fields that it does not take.
    """
    return instantiate({"name": path, **fields}, "Parser", where="the scene-graph parser")


def parse(parser: Parser, captions: Sequence[str]) -> list[SceneGraph]:
    """One graph a caption; equal captions are parsed once.

    Raises:
      UserError: the parser does not give one `SceneGraph` a caption.
    """
    different = list(dict.fromkeys(captions))
    graphs = list(parser(different)) if different else []
    if len(graphs) != len(different):
        raise UserError(
            f"the scene-graph parser {parser.name!r} gave {len(graphs)} graphs for"
            f" {len(different)} captions: it must give one each"
        )
    for caption, graph in zip(different, graphs, strict=True):
        if not isinstance(graph, SceneGraph):
            raise UserError(
                f"the scene-graph parser {parser.name!r} gave a {type(graph).__name__} for"
                f" {caption!r}: it must give a SceneGraph"
            )
    by_caption = dict(zip(different, graphs, strict=True))
    return [by_caption[caption] for caption in captions]


def _clean(tuples: Iterable[tuple[str, ...]], length: int) -> tuple:
    """The tuples lower-cased and each once."""
    clean = {}
    for parts in tuples:
        if len(parts) != length:
            raise UserError(f"{parts!r} has {len(parts)} parts: this tuple needs {length}")
        for part in parts:
            if not isinstance(part, str) or not part.strip():
                raise UserError(f"{parts!r} holds {part!r}: every part must be a word")
        clean[tuple(" ".join(part.lower().split()) for part in parts)] = None
    return tuple(clean)
