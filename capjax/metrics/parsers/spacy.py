"""Scene graphs of English captions by the dependency parse of a spaCy model.

    parser = load_parser("capjax.metrics.parsers.spacy", model="en_core_web_sm")

spaCy and its models are optional. The rules that turn a parse into a graph are in `dependencies`;
other models than the English ones of spaCy, which have other labels, do not fit them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capjax.errors import UserError
from capjax.metrics.parsers.dependencies import Token, scene_graph
from capjax.metrics.scene_graph import SceneGraph


class Parser:
    """Parses with `model`, the name of an installed spaCy model or the path of one.

    Raises:
      UserError: spaCy or the model is not installed.
    """

    name = "spacy"

    def __init__(self, model: str = "en_core_web_sm"):
        try:
            import spacy
        except ModuleNotFoundError as error:
            if error.name != "spacy":
                raise
            raise UserError(
                "the scene-graph parser capjax.metrics.parsers.spacy needs spaCy: install it with"
                f" `pip install spacy` and `python -m spacy download {model}`"
            ) from error
        try:
            self._pipeline = spacy.load(model, exclude=["ner"])
        except OSError as error:
            raise UserError(
                f"spaCy has no model {model!r}: install it with `python -m spacy download {model}`"
            ) from error

    def __call__(self, captions: Sequence[str]) -> list[SceneGraph]:
        return [scene_graph(tokens_of(parsed)) for parsed in self._pipeline.pipe(captions)]


def tokens_of(parsed: Iterable) -> list[Token]:
    """The tokens of a `spacy.tokens.Doc`."""
    return [
        Token(token.text, token.lemma_, token.tag_, token.dep_, token.head.i) for token in parsed
    ]
