"""Scene graphs of captions of the generated scenes, read with the grammar that writes them.

Synonyms become the name in the scene's graph ("disc" is `circle`), so no WordNet is needed. What
does not name its shape is a `shape`. Colour, size, texture, the number of a group and regions of
the picture are attributes; `left of` and its like are relations; a background that is mentioned is
the object `background`. A caption outside the grammar has the empty graph, which scores 0.

The grammar is a pure module of strings; nothing here draws a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

from capjax.data.scenes.description import Description, Mention
from capjax.data.scenes.parse import parse
from capjax.data.scenes.vocabulary import NUMBERS
from capjax.metrics.scene_graph import SceneGraph

NAMELESS = "shape"
BACKGROUND = "background"


class Parser:
    """For captions of `capjax.data.scenes`."""

    name = "scenes"

    def __call__(self, captions: Sequence[str]) -> list[SceneGraph]:
        return [_graph(parse(caption)) for caption in captions]


def _graph(description: Description | None) -> SceneGraph:
    if description is None:
        return SceneGraph()
    objects, attributes, relations = [], [], []
    for clause in description.clauses:
        names = [mention.shape or NAMELESS for mention in clause.mentions]
        objects += names
        for name, mention in zip(names, clause.mentions, strict=True):
            attributes += [(name, value) for value in _looks(mention)]
        relations += [(names[i], relation, names[j]) for i, relation, j in clause.relations]
    behind = [value for value in (description.background, description.background_colour) if value]
    attributes += [(BACKGROUND, value) for value in behind]
    return SceneGraph.of(objects, attributes, relations)


def _looks(mention: Mention) -> list[str]:
    values = [getattr(mention, name) for name in mention.named if name != "shape"]
    if mention.exact:
        values.append(NUMBERS[mention.count - 1])
    # Sorted: the regions of a place are a set, whose order differs from process to process.
    return values + sorted({region for place in mention.places for region in place})
