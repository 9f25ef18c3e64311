"""A noun-and-verb stand-in for a scene-graph parser, for tests alone: it knows only listed words.

Nouns are objects; a verb is an attribute of the noun before it, or a relation if another noun
follows. Results that rest on it carry the label `toy`.
"""

from __future__ import annotations

from collections.abc import Sequence

from capjax.metrics.scene_graph import SceneGraph

NOUNS = ("ball", "bird", "boy", "car", "cat", "dog", "girl", "man", "rain", "roof", "woman")
VERBS = ("bark", "chase", "fall", "meow", "run", "see", "sit", "sleep")
ENDINGS = ("", "s", "es", "ing", "ed", "d")


class Parser:
    """Knows `nouns` and `verbs` with their regular endings."""

    name = "toy"

    def __init__(self, nouns: Sequence[str] = NOUNS, verbs: Sequence[str] = VERBS):
        self._nouns = {noun + ending: noun for noun in nouns for ending in ENDINGS[:3]}
        self._verbs = {verb + ending: verb for verb in verbs for ending in ENDINGS}

    def __call__(self, captions: Sequence[str]) -> list[SceneGraph]:
        return [self._graph(caption.lower().split()) for caption in captions]

    def _graph(self, words: list[str]) -> SceneGraph:
        objects, attributes, relations = [], [], []
        verb = None  # that still waits for its object
        for word in words:
            if word in self._nouns:
                objects.append(self._nouns[word])
                if verb:
                    relations.append((objects[-2], verb, objects[-1]))
                    verb = None
            elif word in self._verbs and objects:
                if verb:
                    attributes.append((objects[-1], verb))
                verb = self._verbs[word]
        if verb:
            attributes.append((objects[-1], verb))
        return SceneGraph.of(objects, attributes, relations)
