"""Captioners that each see a part, and one that errs: the small world of ranking and fusing.

    colours    "a red object on a grey background"             A of the spec
    shapes     "a circle at the top left"                      B
    noisy      "a blue circle at the top left on a grey background", of which each part is wrong
               with a probability of 0.4                       C
    truth      some of a picture's facts, all of them true, two captions a picture: for the scorer
    full       all of them: the reference

One shape a picture. The spec has three and relations between them, which captioners of this size
do not learn in minutes. A record is drawn from (seed, split, index) alone.

Raises `UserError` for captions of no such kind.
"""

from __future__ import annotations

from typing import Any

from capjax.curate.stages.facts import Fact, Lexicon
from capjax.curate.stages.texts import draw
from capjax.data.scenes.figures import figures
from capjax.data.scenes.vocabulary import BACKGROUND_COLOURS, article
from capjax.errors import UserError

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
SHAPES = ("circle", "square", "triangle", "star", "cross", "moon")
BACKGROUNDS = tuple(BACKGROUND_COLOURS)
PLACES = ("left", "right", "top", "bottom", "centre")
CORNERS = (
    *("top left", "top", "top right", "left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)
FACTS = Lexicon({"colour": COLOURS, "shape": SHAPES, "place": PLACES, "background": BACKGROUNDS})
VALUES = {"colour": COLOURS, "shape": SHAPES, "place": CORNERS, "background": BACKGROUNDS}
KINDS = ("colours", "shapes", "noisy", "truth", "full")
WRONG, TOLD = 0.4, 0.6  # of a noisy fact to be wrong; of a true one to be told


def sentence(looks: dict[str, str]) -> str:
    """The parts that there are, in one form of words."""
    words = [looks[name] for name in ("colour", "shape") if name in looks]
    if "shape" not in looks:
        words.append("object")
    parts = [f"{article(words[0])} {' '.join(words)}"]
    if "place" in looks:
        place = looks["place"]
        preposition = {"left": "on", "right": "on", "centre": "in"}.get(place, "at")
        parts.append(f"{preposition} the {place}")
    if "background" in looks:
        parts.append(f"on a {looks['background']} background")
    return " ".join(parts)


class Source:
    """Records {key, image, captions, graph}; captions: one of KINDS."""

    def __init__(
        self, split: str, size: int, captions: str = "full", seed: int = 0, image_size: int = 32
    ):
        if captions not in KINDS:
            raise UserError(f"captions={captions!r} must be one of {', '.join(KINDS)}")
        self.kind = captions
        self.scenes = figures(
            split, size, shapes=SHAPES, colours=COLOURS, seed=seed, image_size=image_size
        )
        self._prefix = f"rank_fuse-{seed}-{split}"

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        own = {"key": self.key(index), "captions": self.captions(index)}
        return {**self.scenes[index], **own}

    def key(self, index: int) -> str:
        return f"{self._prefix}-{index:07d}"

    def looks(self, index: int) -> dict[str, str]:
        """What there is to say of a picture."""
        scene = self.scenes.graph(index)
        (figure,) = scene.objects
        return {
            "colour": figure.colour,
            "shape": figure.shape,
            "place": " ".join(figure.regions),
            "background": scene.background_colour,
        }

    def truth(self, index: int) -> frozenset[Fact]:
        """All facts of a picture, four or, in a corner, five."""
        return FACTS(sentence(self.looks(index)))

    def captions(self, index: int) -> list[str]:
        """The captions of a record, without drawing it."""
        looks, key = self.looks(index), self.key(index)
        if self.kind == "colours":
            return [sentence({name: looks[name] for name in ("colour", "background")})]
        if self.kind == "shapes":
            return [sentence({name: looks[name] for name in ("shape", "place")})]
        if self.kind == "noisy":
            return [sentence({n: _perhaps_wrong(n, v, key) for n, v in looks.items()})]
        if self.kind == "truth":
            return [sentence(_some(looks, key, number)) for number in range(2)]
        return [sentence(looks)]


def _perhaps_wrong(name: str, value: str, key: str) -> str:
    if draw("wrong", name, key) >= WRONG:
        return value
    others = [other for other in VALUES[name] if other != value]
    return others[int(draw("other", name, key) * len(others))]


def _some(looks: dict[str, str], key: str, number: int) -> dict[str, str]:
    kept = {n: v for n, v in looks.items() if draw("told", number, n, key) < TOLD}
    if kept:
        return kept
    name = list(looks)[int(draw("one", number, key) * len(looks))]
    return {name: looks[name]}
