"""One shape a picture in three styles: the small world of prefix conditioning (arXiv 2206.01125).

    flat       black, solid, upright, on a plain background: a classification set of 12 shapes
    textured   in eight colours and three textures, turned, on shaded and noisy backgrounds, with
               free captions that name colours, places and the like: a caption set of 24 shapes
    outlined   brown or white outlines on striped backgrounds, which training never shows

No texture, colour or kind of background is shared by two styles. A record's `label` is its shape.
The captions of `flat` and `outlined` are nothing that training reads: sentences around the label
(`capjax.data.prompted`) take their place.

Raises `UserError` for a style that does not exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from capjax.data.scenes import Source as Scenes
from capjax.data.scenes.vocabulary import COLOURS, SHAPES
from capjax.errors import UserError

CLASSES = SHAPES[:12]
OUTLINED_COLOURS = ("brown", "white")
FLAT_COLOURS = ("black",)

# The first has a wording that free captions have too, the second one that they lack.
TEMPLATES = ("a picture of a {}", "a photo of a {}")

# Sentences about a class in varied contexts, in words that captions of `textured` use.
CONTEXTS = tuple(
    " ".join(part for part in (opening, "a", adjectives, "{}", place) if part)
    for opening, adjectives, place in itertools.product(
        ("", "here we see", "there is"),
        ("red", "striped blue", "large dotted yellow", "checked"),
        ("on the left", "at the top right", "on a grey background"),
    )
)

STYLES: dict[str, dict[str, Any]] = {
    "flat": dict(colours=FLAT_COLOURS, textures=("solid",), backgrounds=("plain",)),
    "textured": dict(
        colours=tuple(c for c in COLOURS if c not in FLAT_COLOURS + OUTLINED_COLOURS),
        textures=("striped", "dotted", "checked"),
        backgrounds=("shaded", "noisy"),
        max_rotation=20,
    ),
    "outlined": dict(
        colours=OUTLINED_COLOURS, textures=("outlined",), backgrounds=("striped",), max_rotation=20
    ),
}


class Source:
    """Records {key, image, captions, label, class_id and what `capjax.data.scenes` gives}.

    style: see above. shapes: what is drawn. split: train, val or test, of different pictures.
    class_id is -1, no class: a caption's pair matches no other pair.
    """

    def __init__(
        self,
        style: str,
        split: str,
        size: int,
        shapes: Sequence[str] = CLASSES,
        image_size: int = 32,
    ):
        if style not in STYLES:
            raise UserError(f"unknown style {style!r}: choose one of {', '.join(STYLES)}")
        self.scenes = Scenes(
            seed=list(STYLES).index(style),  # no two styles share the places of their shapes
            size=size,
            split=split,
            image_size=image_size,
            max_objects=1,
            shapes=shapes,
            sizes=("large",),
            zoom=1.5,  # at 32 pixels, so that a pattern does not hide the shape
            captions={"short": 0.5, "human": 0.5},
            **STYLES[style],
        )

    def __len__(self) -> int:
        return len(self.scenes)

    def captions(self, index: int) -> list[str]:
        """The captions of a record, without drawing it."""
        return self.scenes.captions(index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.scenes[index]
        (shape,) = record["graph"].objects
        return {**record, "label": shape.shape, "class_id": -1}
