"""CapsFusion's small world: a figure a picture, its alt-text, a synthetic caption and the truth.

    alt-text     "best price Lunetta wallpaper"       who it is, in bad form; the name is tied to
                                                      the figure's shape, which no other text names
    synthetic    "a red figure on the left on a       what can be seen, in good form; names and
                  grey background"                    shapes have become generic words
    full         "a red Lunetta on the left on a grey background"

One alt-text in ten has no name. The synthetic captions are written from the scene's graph, as a
generic captioner would write them, and are true; they stand in for BLIP's.

A record is drawn from (seed, split, index) alone. Raises `UserError` for captions of no such kind.
"""

from __future__ import annotations

from typing import Any

from capjax.curate.stages.facts import Lexicon
from capjax.curate.stages.texts import draw
from capjax.data.scenes.figures import figures
from capjax.data.scenes.graph import SceneObject
from capjax.data.scenes.vocabulary import BACKGROUND_COLOURS
from capjax.errors import UserError
from experiments.capsfusion.script import fuse, rewrite

NAMES = {
    "circle": "Orbita",
    "square": "Quadrel",
    "triangle": "Trivane",
    "star": "Estella",
    "cross": "Crucion",
    "diamond": "Rombel",
    "heart": "Cordia",
    "moon": "Lunetta",
}
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
PLACES = ("left", "right", "top", "bottom", "centre")
FACTS = Lexicon(
    {
        "name": NAMES.values(),
        "colour": COLOURS,
        "background": tuple(BACKGROUND_COLOURS),
        "place": PLACES,
    }
)
BEFORE = ("buy", "best price", "free download", "new", "photo of", "")
AFTER = ("wallpaper", "for sale", "hd photo", "online shop", "clipart", "")
OPENINGS = ("", "there is ", "a picture of ")
NOUNS = ("shape", "object", "figure")
NAMELESS = 0.1
KINDS = ("alt_text", "synthetic", "rewritten", "mixed", "fused", "full")


class Source:
    """Records {key, image, captions, alt_text, graph}.

    captions: what the record's captions are, one of KINDS; "mixed" is the alt-text or the synthetic
    caption by the key, "rewritten" and "fused" are the script's. Those of a pipeline are had by
    `capjax.curate.pairs`.
    """

    def __init__(
        self,
        split: str,
        size: int,
        captions: str = "full",
        seed: int = 0,
        image_size: int = 32,
    ):
        if captions not in KINDS:
            raise UserError(f"captions={captions!r} must be one of {', '.join(KINDS)}")
        self.kind = captions
        self.scenes = figures(
            split, size, shapes=NAMES, colours=COLOURS, seed=seed, image_size=image_size
        )
        self._prefix = f"capsfusion-{seed}-{split}"

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.scenes[index]
        told = {"key": self.key(index), "alt_text": self.alt_text(index)}
        return {**record, **told, "captions": self.captions(index)}

    def key(self, index: int) -> str:
        return f"{self._prefix}-{index:07d}"

    def figure(self, index: int) -> SceneObject:
        return self.scenes.graph(index).objects[0]

    def alt_text(self, index: int) -> str:
        """What stands beside the picture on the web."""
        key = self.key(index)
        name = NAMES[self.figure(index).shape] if draw("named", key) >= NAMELESS else ""
        before, after = _pick(BEFORE, "before", key), _pick(AFTER, "after", key)
        return " ".join(part for part in (before, name, after) if part) or "photo"

    def synthetic(self, index: int) -> str:
        """What a captioner says that knows no names."""
        key = self.key(index)
        return _pick(OPENINGS, "opening", key) + self._said(index, _pick(NOUNS, "noun", key))

    def full(self, index: int) -> list[str]:
        """All that is true, in every wording: references."""
        said = self._said(index, NAMES[self.figure(index).shape])
        return [opening + said for opening in OPENINGS]

    def captions(self, index: int) -> list[str]:
        """The captions of a record, without drawing it."""
        if self.kind == "full":
            return self.full(index)
        alt_text, synthetic = self.alt_text(index), self.synthetic(index)
        if self.kind == "mixed":
            return [alt_text if draw("mixed", self.key(index)) < 0.5 else synthetic]
        made = {
            "alt_text": lambda: alt_text,
            "synthetic": lambda: synthetic,
            "rewritten": lambda: rewrite(alt_text),
            "fused": lambda: fuse(alt_text, synthetic),
        }
        return [made[self.kind]()]

    def _said(self, index: int, noun: str) -> str:
        figure, scene = self.figure(index), self.scenes.graph(index)
        place = " ".join(figure.regions)
        preposition = {"left": "on", "right": "on", "centre": "in"}.get(place, "at")
        return (
            f"{'an' if figure.colour[0] in 'aeiou' else 'a'} {figure.colour} {noun} {preposition} "
            f"the {place} on a {scene.background_colour} background"
        )


def _pick(options: tuple[str, ...], *parts: str) -> str:
    return options[int(draw(*parts) * len(options))]
