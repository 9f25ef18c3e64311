"""One coloured shape a picture, captions that name both: the small world of CLIP's claims.

48 pairs of 8 colours and 6 shapes; 12 of them never occur in training, two of each shape and at
most two of a colour. A record's `label` is its colour and shape ("red circle").
"""

from __future__ import annotations

from typing import Any

from capjax.data.scenes import Source as Scenes

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
# Twelve pairs along two diagonals of the 8 x 6 table.
HELD_OUT = tuple((COLOURS[(i + i // 6) % 8], SHAPES[i % 6]) for i in range(12))
_STEP = 7919  # a prime: index * _STEP visits every record of a set once


class Source:
    """`permuted`: each picture has the captions of another one, which is CLIP without its pairs."""

    def __init__(
        self, split: str, size: int, seed: int = 0, image_size: int = 32, permuted: bool = False
    ):
        self.permuted = permuted
        self.scenes = Scenes(
            seed=seed,
            size=size,
            split=split,
            image_size=image_size,
            max_objects=1,
            shapes=SHAPES,
            colours=COLOURS,
            textures=("solid",),
            captions={"short": 1},
            hold_out=HELD_OUT,
        )

    def __len__(self) -> int:
        return len(self.scenes)

    def captions(self, index: int) -> list[str]:
        """The captions of a record, without drawing it."""
        if self.permuted:
            index = (index + 1) * _STEP % len(self)
        return self.scenes.captions(index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.scenes[index]
        (shape,) = record["graph"].objects
        label = f"{shape.colour} {shape.shape}"
        return {**record, "captions": self.captions(index), "label": label}
