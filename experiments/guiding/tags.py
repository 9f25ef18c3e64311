"""Two ways to speak of one coloured shape: tags, as the web has them, and sentences.

    tags        "photo red circle 12"       any two digits
    sentences   "there is a red circle here", and three other frames
    mixed       nine in ten tags, one in ten sentences: what a captioner reads on the web

The claim about language-model guidance (guiding, arXiv 2307.16686, section 3.2) is tried on these:
a captioner that learned `mixed` says tags, and a language model of `sentences` is to change how it
speaks and not what it sees. Pictures are those of configs/guiding/toy.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from capjax.data import scenes
from capjax.errors import UserError

COLOURS = ("red", "green", "blue", "yellow")
KINDS = ("circle", "square", "triangle")
FRAMES = ("there is a {} here", "this is a {}", "a picture of a {}", "here we see a {}")
TAG_SHARE = {"tags": 1.0, "mixed": 0.9, "sentences": 0.0}
CAPTIONS = 5  # of each picture


class Source:
    """`size` records {key, captions, graph}, with `pictures` also {image}."""

    def __init__(
        self,
        style: str = "mixed",
        split: str = "train",
        size: int = 10_000,
        image_size: int = 32,
        pictures: bool = True,
        seed: int = 0,
    ):
        if style not in TAG_SHARE:
            raise UserError(f"tags: style={style!r} must be one of {', '.join(TAG_SHARE)}")
        self._scenes = scenes.Source(
            seed=seed,
            size=size,
            split=split,
            image_size=image_size,
            max_objects=1,
            shapes=KINDS,
            colours=COLOURS,
            sizes=("large",),
            textures=("solid",),
            backgrounds=("plain",),
            captions="toy_specific",
            captions_per_image=1,
        )
        self._share, self._pictures = TAG_SHARE[style], pictures
        self._seed = (seed, scenes.source.SPLITS.index(split))

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._scenes[index]
        kept = {name: record[name] for name in ("key", "graph")}
        if self._pictures:
            kept["image"] = record["image"]
        return kept | {"captions": self._write(index, record["captions"][0])}

    def captions(self, index: int) -> list[str]:
        """The captions, without the picture."""
        return self._write(index, self._scenes.captions(index)[0])

    def _write(self, index: int, named: str) -> list[str]:
        """CAPTIONS texts about what is named, "a red circle"."""
        looks = named.split(maxsplit=1)[1]
        rng = np.random.default_rng((*self._seed, index))
        texts = []
        for _ in range(CAPTIONS):
            if rng.random() < self._share:
                texts.append(f"photo {looks} {rng.integers(10)}{rng.integers(10)}")
            else:
                texts.append(FRAMES[rng.integers(len(FRAMES))].format(looks))
        return texts


def is_named(caption: str, graph: scenes.Scene) -> bool:
    """Whether the caption names the colour and the kind of the only object, and no other ones."""
    words = set(caption.lower().split())
    (item,) = graph.objects
    return words & set(COLOURS) == {item.colour} and words & set(KINDS) == {item.shape}
