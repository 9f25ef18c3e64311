"""Draws a scene: how many objects, which attributes, where, on which background.

A `World` holds what may be drawn. Attribute combinations are listed once and drawn uniformly, so
that held-out combinations cost nothing and are excluded exactly.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from capjax.data.scenes.draws import Draws
from capjax.data.scenes.graph import Scene, SceneObject

# Radii as fractions of the side when at most four objects share it; clearly two groups.
RADII = {"small": (0.105, 0.115, 0.125), "large": (0.19, 0.205, 0.22)}
TRIES = 24
EDGE = 0.01  # distance kept between an object's disc and the picture's edge
ANGLE_STEP = 5  # degrees: few enough angles that the stamps stay cached


@dataclass(frozen=True)
class World:
    """What scenes are made of; every field has been checked by `Source`.

    `combinations` lists the allowed (shape, colour, size, texture). `alike` is the chance that an
    object repeats the attributes of one before it. `overlap` is the share of the sum of two radii
    by which two discs may overlap. `scale` multiplies every radius.
    """

    combinations: tuple[tuple[str, str, str, str], ...]
    backgrounds: tuple[str, ...]
    background_colours: tuple[str, ...]
    min_objects: int
    max_objects: int
    alike: float
    overlap: float
    max_rotation: int
    scale: float

    def scene(self, draws: Draws) -> Scene:
        """One scene."""
        count = self.min_objects + draws.below(self.max_objects - self.min_objects + 1)
        background = draws.pick(self.backgrounds)
        background_colour = draws.pick(self.background_colours)
        chosen: list[tuple[str, str, str, str]] = []
        for _ in range(count):
            again = chosen and draws.chance(self.alike)
            chosen.append(draws.pick(chosen if again else self.combinations))
        radii = [round(draws.pick(RADII[size]) * self.scale, 4) for _, _, size, _ in chosen]
        centres = self._scatter(draws, radii) or self._grid(draws, radii)
        turns = self.max_rotation // ANGLE_STEP
        objects = tuple(
            SceneObject(
                *attributes,
                x=x,
                y=y,
                radius=radius,
                angle=ANGLE_STEP * (draws.below(2 * turns + 1) - turns) if turns else 0,
            )
            for attributes, radius, (x, y) in zip(chosen, radii, centres, strict=True)
        )
        return Scene(objects, background, background_colour)

    def _scatter(self, draws: Draws, radii: list[float]) -> list[tuple[float, float]] | None:
        """Centres drawn anywhere, redrawn on too much overlap; None when room was not found."""
        centres: list[tuple[float, float]] = []
        for at, radius in enumerate(radii):
            low = radius + EDGE
            span = 1 - 2 * low
            for _ in range(TRIES):
                x, y = low + span * draws.uniform(), low + span * draws.uniform()
                for (other_x, other_y), other in zip(centres, radii[:at], strict=True):
                    reach = (radius + other) * (1 - self.overlap)
                    if (x - other_x) ** 2 + (y - other_y) ** 2 < reach * reach:
                        break
                else:
                    centres.append((x, y))
                    break
            else:
                return None
        return centres

    def _grid(self, draws: Draws, radii: list[float]) -> list[tuple[float, float]]:
        """Centres in different cells of the smallest square grid, moved within their cells."""
        side = next(n for n in itertools.count(1) if n * n >= len(radii))
        cells = list(range(side * side))
        centres = []
        for radius in radii:
            cell = cells.pop(draws.below(len(cells)))
            room = max(0.0, 1 / side - 2 * (radius + EDGE))
            x, y = ((at + 0.5) / side for at in (cell % side, cell // side))
            jitter_x, jitter_y = draws.uniform() - 0.5, draws.uniform() - 0.5
            centres.append((x + room * jitter_x, y + room * jitter_y))
        return centres
