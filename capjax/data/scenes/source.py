"""`Source`: pictures of coloured shapes with scene graphs, masks, boxes and captions.

A record is drawn from (seed, split, index) alone: in any order, on any worker, on any machine, the
same record. The scene does not depend on the picture's size nor on the captions asked for, and the
captions do not depend on the picture's size. No two splits of one seed share a scene's seed.

Letters: S = image_size, N = number of objects of the record.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping

from capjax.data.scenes import arguments
from capjax.data.scenes.draws import Draws, distribution, mix64
from capjax.data.scenes.grammar import DEFAULT_VOCABULARY, REGISTERS, Caption, Vocabulary
from capjax.data.scenes.graph import Scene
from capjax.data.scenes.layout import World
from capjax.data.scenes.render import render
from capjax.data.scenes.vocabulary import (
    BACKGROUND_COLOURS,
    BACKGROUNDS,
    COLOURS,
    DEFAULT_BACKGROUNDS,
    DEFAULT_SHAPES,
    DEFAULT_TEXTURES,
    MAX_OBJECTS,
    SHAPES,
    SIZES,
    TEXTURES,
)
from capjax.errors import UserError

SPLITS = ("train", "val", "test")
_SCENE, _CAPTIONS, _NOISE = range(3)  # separate streams of randomness


class Source:
    """Generated scenes; see `__init__` for what can be drawn, `__getitem__` for a record."""

    def __init__(
        self,
        seed: int = 0,
        size: int = 10_000,
        split: str = "train",
        image_size: int = 64,
        min_objects: int = 1,
        max_objects: int = 4,
        shapes: Iterable[str] = DEFAULT_SHAPES,
        colours: Iterable[str] = tuple(COLOURS),
        sizes: Iterable[str] = SIZES,
        textures: Iterable[str] = DEFAULT_TEXTURES,
        backgrounds: Iterable[str] = DEFAULT_BACKGROUNDS,
        background_colours: Iterable[str] = tuple(BACKGROUND_COLOURS),
        captions: str | Mapping[str, float] = "human",
        captions_per_image: int | None = None,
        hold_out: Iterable[Iterable[str]] = (),
        alike: float = 0.25,
        overlap: float = 0.0,
        max_rotation: int = 0,
        zoom: float = 1.0,
    ):
        """Checks every argument; raises `UserError` naming the argument and what is allowed.

        Args:
          seed: of the whole data set, 0 or more.
          size: number of records, up to 2**56.
          split: train, val or test.
          image_size: side of the picture in pixels, 16 to 1024.
          min_objects, max_objects: per scene, 1 to 9; every number between is as likely. Above
            four, all objects are drawn at 0.7 times their size.
          shapes, colours, sizes, textures: allowed values, see `vocabulary.py`.
          backgrounds, background_colours: likewise.
          captions: a register; or {register: probability}, floats that sum to 1, of which every
            caption is drawn by itself; or {register: count}, integers: so many of each. The
            registers are those of `grammar.py`, in whose order counted ones come.
          captions_per_image: 5 unless told; with counts it is their sum.
          hold_out: combinations such as ("red", "circle") or ("striped", "blue", "star"). No
            object of train and val has one; every object of test has one.
          alike: chance that an object repeats all attributes of one before it.
          overlap: 0 to 0.4, by how much the discs around objects may overlap.
          max_rotation: objects turn by up to so many degrees, 0 to 20, in steps of 5 (not further:
            a diamond must not become a square).
          zoom: 1 to 1.8, by which a single object is larger than usual, for small pictures; above 1
            only with max_objects=1.
        """
        self.seed = arguments.integer("seed", seed, 0, 2**63 - 1)
        self.size = arguments.integer("size", size, 1, 2**56)
        self.split = arguments.choices("split", [split], SPLITS)[0]
        self.image_size = arguments.integer("image_size", image_size, 16, 1024)
        min_objects = arguments.integer("min_objects", min_objects, 1, MAX_OBJECTS)
        max_objects = arguments.integer("max_objects", max_objects, 1, MAX_OBJECTS)
        if min_objects > max_objects:
            raise UserError(
                f"scenes: min_objects={min_objects} is larger than max_objects={max_objects}; "
                "swap or raise max_objects"
            )
        self.vocabulary: Vocabulary = {
            "shape": arguments.choices("shapes", shapes, SHAPES),
            "colour": arguments.choices("colours", colours, tuple(COLOURS)),
            "size": arguments.choices("sizes", sizes, SIZES),
            "texture": arguments.choices("textures", textures, TEXTURES),
        }
        self.hold_out = arguments.hold_out(hold_out, self.vocabulary)
        combinations = arguments.combinations(self.vocabulary, self.hold_out, self.split)
        self._world = World(
            combinations=combinations,
            backgrounds=arguments.choices("backgrounds", backgrounds, BACKGROUNDS),
            background_colours=arguments.choices(
                "background_colours", background_colours, tuple(BACKGROUND_COLOURS)
            ),
            min_objects=min_objects,
            max_objects=max_objects,
            alike=arguments.fraction("alike", alike, 1.0),
            overlap=arguments.fraction("overlap", overlap, 0.4),
            max_rotation=arguments.integer("max_rotation", max_rotation, 0, 20),
            scale=arguments.zoom(zoom, max_objects) * (1.0 if max_objects <= 4 else 0.7),
        )
        self._register_names, self._register_weights, self.captions_per_image = arguments.registers(
            captions, captions_per_image
        )
        split_bits = SPLITS.index(self.split) << 60
        # mix64 is a bijection, so that different (split, index) cannot meet in one state.
        self._states = [
            (mix64((mix64(self.seed) + purpose) & (2**64 - 1)), split_bits) for purpose in range(3)
        ]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        """The record at `index` (negative ones count from the end); IndexError beyond the end.

        Returns a dict:
          key: str, unique within (seed, split).
          image: uint8 [S,S,3], RGB.
          captions: list of str; registers: list of str, the register of each;
          faithful: list of bool, whether each is true of the scene (only alt_text may be false).
          graph: `graph.Scene`.
          masks: bool [N,S,S], the visible part of each object of the graph, in its order.
          boxes: float32 [N,4], (x0, y0, x1, y1) as fractions of the side, tight around the masks.
        """
        index = self._checked(index)
        scene = self._scene(index)
        captions, registers, faithful = self._captioned(index, scene)
        image, masks, boxes = render(scene, self.image_size, self._state(_NOISE, index))
        return {
            "key": f"scenes-{self.seed}-{self.split}-{index:08d}",
            "image": image,
            "captions": captions,
            "registers": registers,
            "faithful": faithful,
            "graph": scene,
            "masks": masks,
            "boxes": boxes,
        }

    def graph(self, index: int) -> Scene:
        """The scene graph of a record, without rendering it."""
        return self._scene(self._checked(index))

    def captions(self, index: int) -> list[str]:
        """The captions of a record, without rendering it."""
        index = self._checked(index)
        return self._captioned(index, self._scene(index))[0]

    def captioned(self, index: int) -> tuple[list[str], list[str], list[bool]]:
        """A record's (captions, registers, faithful), without rendering it."""
        index = self._checked(index)
        return self._captioned(index, self._scene(index))

    def registers(self, index: int) -> list[str]:
        """The register of each of `captions(index)`."""
        return self.captioned(index)[1]

    def caption_distribution(self, index: int, register: str | None = None) -> dict[str, float]:
        """Exactly how likely each caption of a record is; by default under the source's own mix."""
        scene = self.graph(index)
        if register is not None:
            return caption_distribution(scene, register, self.vocabulary)
        weights = self._register_weights or [1 / len(self._register_names)] * len(
            self._register_names
        )
        result: dict[str, float] = {}
        for name, weight in zip(self._register_names, weights, strict=True):
            for text, p in caption_distribution(scene, name, self.vocabulary).items():
                result[text] = result.get(text, 0.0) + weight * p
        return result

    def _checked(self, index: int) -> int:
        position = operator.index(index)
        if position < 0:
            position += self.size
        if not 0 <= position < self.size:
            raise IndexError(f"scenes: index {index} of {self.size} records")
        return position

    def _state(self, purpose: int, index: int) -> int:
        base, split_bits = self._states[purpose]
        return mix64(base ^ (split_bits | index))

    def _scene(self, index: int) -> Scene:
        return self._world.scene(Draws(self._state(_SCENE, index)))

    def _captioned(self, index: int, scene: Scene) -> tuple[list[str], list[str], list[bool]]:
        draws = Draws(self._state(_CAPTIONS, index))
        if self._register_weights is None:
            names = list(self._register_names)
        else:
            names = [
                self._register_names[draws.weighted(self._register_weights)]
                for _ in range(self.captions_per_image)
            ]
        written: list[Caption] = [REGISTERS[name](scene, draws, self.vocabulary) for name in names]
        return [c.text for c in written], names, [c.faithful for c in written]


def caption_distribution(
    scene: Scene,
    register: str,
    vocabulary: Vocabulary | None = None,
    max_paths: int = 200_000,
) -> dict[str, float]:
    """{caption: probability} of one register, exactly.

    `vocabulary` is a source's own (`alt_text` draws its wrong values from it). Raises UserError
    beyond `max_paths` ways to write a caption (some ten seconds), which `alt_text` and, with
    several objects, `human` have.
    """
    arguments.choices("register", [register], tuple(REGISTERS))
    words = vocabulary or DEFAULT_VOCABULARY
    write = REGISTERS[register]
    result = distribution(lambda chooser: write(scene, chooser, words).text, max_paths)
    if result is None:
        raise UserError(
            f"scenes: register {register!r} has too many captions of this scene to list; "
            "sample it instead"
        )
    return result
