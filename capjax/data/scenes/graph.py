"""The scene graph: objects with attributes, their places and the relations between them.

Coordinates are fractions of the picture's side, x to the right and y down; (x, y) is an object's
centre. Places and relations are read off the centres, with a margin, so that a picture shows what
its graph says:

    left   x < 0.4      right  x > 0.6      top  y < 0.4      bottom  y > 0.6
    centre 0.4 <= x <= 0.6 and 0.4 <= y <= 0.6
    a left of b   a.x + 0.1 <= b.x          a above b   a.y + 0.1 <= b.y

Two relations may hold of one pair (left of and above); `main_relation` is the one along the longer
distance, which is what a person would say first.
"""

from __future__ import annotations

from dataclasses import dataclass

NEAR, FAR = 0.4, 0.6
MARGIN = 0.1


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object. `radius` is that of the disc around it, `angle` its turn in degrees."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float
    radius: float
    angle: int = 0

    @property
    def regions(self) -> tuple[str, ...]:
        """The named regions, vertical one first: ("top", "left"), ("right",), ("centre",)."""
        vertical = "top" if self.y < NEAR else "bottom" if self.y > FAR else None
        horizontal = "left" if self.x < NEAR else "right" if self.x > FAR else None
        return tuple(word for word in (vertical, horizontal) if word) or ("centre",)


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene graph: objects on a background. Its relations follow from the objects' centres."""

    objects: tuple[SceneObject, ...]
    background: str
    background_colour: str

    @property
    def relations(self) -> tuple[tuple[int, str, int], ...]:
        """All (i, relation, j) that hold, i and j being positions in `objects`."""
        return tuple(
            (i, relation, j)
            for i, a in enumerate(self.objects)
            for j, b in enumerate(self.objects)
            if i != j
            for relation in ("left of", "right of", "above", "below")
            if holds(a, relation, b)
        )


def holds(a: SceneObject, relation: str, b: SceneObject) -> bool:
    """Whether `a` is left of / right of / above / below `b`."""
    if relation == "left of":
        return a.x + MARGIN <= b.x
    if relation == "right of":
        return b.x + MARGIN <= a.x
    if relation == "above":
        return a.y + MARGIN <= b.y
    return b.y + MARGIN <= a.y


def main_relation(a: SceneObject, b: SceneObject) -> str | None:
    """The relation along the longer distance; None for two centres closer than the margin."""
    across, down = b.x - a.x, b.y - a.y
    if abs(across) >= abs(down):
        relation = "left of" if across > 0 else "right of"
    else:
        relation = "above" if down > 0 else "below"
    return relation if holds(a, relation, b) else None
