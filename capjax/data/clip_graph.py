"""The graph of a generated clip: one or two objects, and what happens to them in which order.

Frames are counted from 0. Coordinates are fractions of the side, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from capjax.data.scenes.graph import Scene, SceneObject

MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
CHANGES = ("appear", "disappear", "recolour")
STILL = "still"  # of an object to which nothing happens
EVENTS = (*MOVES, *CHANGES, STILL)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens to the object at position `object` of the clip.

    `first` is the last frame in which nothing of it shows, `last` the first in which it is done:
    with a move, the frames between lie on the way; a change happens at once, so that `last` is
    `first` + 1. `travel` is how far a move goes, `colour` what a recoloured object becomes.
    """

    object: int
    kind: str
    first: int
    last: int
    travel: float = 0.0
    colour: str | None = None

    def done(self, frame: int) -> float:
        """How much of it is done in a frame, 0 to 1."""
        return min(1.0, max(0.0, (frame - self.first) / (self.last - self.first)))


@dataclass(frozen=True, slots=True)
class Clip:
    """Objects as they are before anything happens, and events in their order."""

    objects: tuple[SceneObject, ...]
    events: tuple[Event, ...]
    background: str
    background_colour: str
    frames: int

    @property
    def still(self) -> tuple[int, ...]:
        """The positions of the objects to which nothing happens."""
        return tuple(
            i for i in range(len(self.objects)) if all(event.object != i for event in self.events)
        )

    @property
    def before(self) -> tuple[tuple[int, int], ...]:
        """All (i, j) such that event i is over when event j begins, by position in `events`."""
        return tuple(
            (i, j)
            for i, a in enumerate(self.events)
            for j, b in enumerate(self.events)
            if a.last <= b.first
        )

    def shown(self, frame: int) -> dict[int, SceneObject]:
        """{position in `objects`: the object as it is in this frame}, without absent ones."""
        result = {}
        for i, item in enumerate(self.objects):
            here = True
            for event in self.events:
                if event.object != i:
                    continue
                done = event.done(frame)
                if event.kind in MOVES:
                    dx, dy = MOVES[event.kind]
                    way = done * event.travel
                    item = replace(item, x=item.x + dx * way, y=item.y + dy * way)
                elif event.kind == "recolour" and done == 1:
                    item = replace(item, colour=event.colour)
                elif event.kind in ("appear", "disappear"):
                    here = (done == 1) == (event.kind == "appear")
            if here:
                result[i] = item
        return result

    def scene(self, frame: int) -> Scene:
        """The scene graph of one frame."""
        objects = tuple(self.shown(frame).values())
        return Scene(objects, self.background, self.background_colour)
