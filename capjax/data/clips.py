"""`Source`: generated clips of one or two objects that move, come, go or change their colour.

A record is drawn from (seed, split, index) alone, on any worker the same; the events do not depend
on the picture's size, nor the captions on the pixels. The frames are drawn by `scenes`, in the same
closed vocabulary.

Letters: T = frames, S = image_size, N = number of objects of the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from capjax.data import clip_captions
from capjax.data.clip_graph import EVENTS, MOVES, STILL, Clip, Event
from capjax.data.generated import Records, combinations, is_held_out, speaking_for
from capjax.data.scenes import arguments
from capjax.data.scenes.draws import Draws
from capjax.data.scenes.graph import SceneObject
from capjax.data.scenes.layout import EDGE, RADII
from capjax.data.scenes.render import render
from capjax.data.scenes.vocabulary import (
    BACKGROUND_COLOURS,
    BACKGROUNDS,
    COLOURS,
    DEFAULT_SHAPES,
    SHAPES,
    SIZES,
    TEXTURES,
)
from capjax.errors import UserError

Found = TypeVar("Found")

_CLIP, _CAPTIONS, _NOISE = range(3)  # separate streams of randomness
# What happens: for each event, the object it happens to; and how often, before `hold_out`.
_PLOTS = {
    1: {(): 1, (0,): 3, (0, 0): 3},
    2: {(): 1, (0,): 3, (0, 0): 2, (0, 1): 5},
}
_SCALE = 0.8  # of the radii of a scene: objects need room to move
_TRAVEL = (0.3, 0.45)  # how far moves go, in sides
_TRIES = 200


class Source:
    """Generated clips; see `__init__` for what can be drawn, `__getitem__` for a record."""

    def __init__(
        self,
        seed: int = 0,
        size: int = 10_000,
        split: str = "train",
        frames: int = 8,
        image_size: int = 64,
        max_objects: int = 2,
        max_events: int = 2,
        events: Iterable[str] = EVENTS,
        shapes: Iterable[str] = DEFAULT_SHAPES,
        colours: Iterable[str] = tuple(COLOURS),
        sizes: Iterable[str] = SIZES,
        textures: Iterable[str] = ("solid",),
        backgrounds: Iterable[str] = ("plain",),
        background_colours: Iterable[str] = tuple(BACKGROUND_COLOURS),
        captions: Iterable[str] = ("short",),
        captions_per_clip: int = 5,
        hold_out: Iterable[Iterable[str]] = (),
    ):
        """Checks every argument; raises `UserError` naming the argument and what is allowed.

        Args:
          seed, size, split, image_size: as in `scenes.Source`.
          frames: T, 4 to 256, shared evenly between the events.
          max_objects: 1 or 2. Two objects differ in colour or shape, and never touch.
          max_events: 0 to 2, which may happen to one object or to both.
          events: what may happen, of `clip_graph.EVENTS`; "still" allows objects (and whole clips)
            to which nothing happens.
          shapes, colours, sizes, textures, backgrounds, background_colours: of the scenes'
            vocabulary.
          captions: registers of `clip_captions`, of which each caption draws one.
          captions_per_clip: how many captions a record has.
          hold_out: combinations such as ("red", "circle") or ("star", "up"). In train and val, no
            object ever has one (an object that turns red counts as red from then on); in test,
            each object has one together with the first thing that happens to it.
        """
        self._records = Records("clips", seed, split, size)
        with speaking_for("clips"):
            self.frames = arguments.integer("frames", frames, 4, 256)
            self.image_size = arguments.integer("image_size", image_size, 16, 1024)
            max_objects = arguments.integer("max_objects", max_objects, 1, 2)
            max_events = arguments.integer("max_events", max_events, 0, 2)
            self.vocabulary = {
                "shape": arguments.choices("shapes", shapes, SHAPES),
                "colour": arguments.choices("colours", colours, tuple(COLOURS)),
                "size": arguments.choices("sizes", sizes, SIZES),
                "texture": arguments.choices("textures", textures, TEXTURES),
                "event": arguments.choices("events", events, EVENTS),
            }
            self._backgrounds = arguments.choices("backgrounds", backgrounds, BACKGROUNDS)
            self._background_colours = arguments.choices(
                "background_colours", background_colours, tuple(BACKGROUND_COLOURS)
            )
            self._registers = arguments.choices("captions", captions, clip_captions.REGISTERS)
            self.captions_per_clip = arguments.integer(
                "captions_per_clip", captions_per_clip, 1, 1000
            )
            self.hold_out = arguments.hold_out(hold_out, self.vocabulary)
        every = combinations(self.vocabulary, self.hold_out, self._records.split)
        self._still = tuple(look for look in every if look[-1] == STILL)
        self._active = tuple(look for look in every if look[-1] != STILL)
        self._plots, self._weights = self._possible_plots(max_objects, max_events)
        self._clip(0)  # what cannot be drawn at all is told at once

    def __len__(self) -> int:
        return self._records.size

    def __getitem__(self, index: int) -> dict:
        """The record at `index` (negative ones count from the end); IndexError beyond the end.

        Returns a dict:
          key: str, unique within (seed, split).
          video: uint8 [T,S,S,3], RGB.
          captions: list of str, each true; registers: list of str, the register of each.
          graph: `clip_graph.Clip`.
          boxes: float32 [T,N,4], (x0, y0, x1, y1) as fractions of the side, zeros while an object
            is not there.
        """
        position = self._records.checked(index)
        clip = self._clip(position)
        captions, registers = self._captioned(position, clip)
        video, boxes = self._drawn(clip, self._records.state(_NOISE, position))
        return {
            "key": self._records.key(position),
            "video": video,
            "captions": captions,
            "registers": registers,
            "graph": clip,
            "boxes": boxes,
        }

    def graph(self, index: int) -> Clip:
        """The graph of a record, without drawing it."""
        return self._clip(self._records.checked(index))

    def captions(self, index: int) -> list[str]:
        """The captions of a record, without drawing it."""
        position = self._records.checked(index)
        return self._captioned(position, self._clip(position))[0]

    def _captioned(self, position: int, clip: Clip) -> tuple[list[str], list[str]]:
        draws = self._records.draws(_CAPTIONS, position)
        registers = [draws.pick(self._registers) for _ in range(self.captions_per_clip)]
        return [clip_captions.write(clip, register, draws) for register in registers], registers

    def _drawn(self, clip: Clip, noise: int) -> tuple[np.ndarray, np.ndarray]:
        video = np.empty((self.frames, self.image_size, self.image_size, 3), np.uint8)
        boxes = np.zeros((self.frames, len(clip.objects), 4), np.float32)
        for t in range(self.frames):
            video[t], _, boxes[t, list(clip.shown(t))] = render(
                clip.scene(t), self.image_size, noise
            )
        return video, boxes

    def _possible_plots(self, max_objects: int, max_events: int) -> tuple[list, list[float]]:
        """[(number of objects, the object of each event)] and how likely each is."""
        found = {}
        for count in range(1, max_objects + 1):
            for plot, weight in _PLOTS[count].items():
                stills = count - len(set(plot))
                if len(plot) > max_events or (stills and not self._still):
                    continue
                if plot and not self._active:
                    continue
                found[count, plot] = weight
        if not found:
            raise UserError(
                "clips: events, max_events and hold_out leave nothing that can happen in this "
                'split; allow "still", or more events'
            )
        total = sum(found.values())
        return list(found), [weight / total for weight in found.values()]

    def _clip(self, position: int) -> Clip:
        draws = self._records.draws(_CLIP, position)
        # Each choice is redrawn by itself until it fits, so that what is hard to place is not rare.
        for _ in range(_TRIES):
            count, plot = self._plots[draws.weighted(self._weights)]
            cast = _first(self._cast, draws, count, plot)
            clip = cast and _first(self._staged, draws, *cast)
            if clip:
                return clip
        raise UserError(
            "clips: hold_out, colours, shapes and events leave no clip to draw in this split; "
            "allow more values, or set max_objects=1 and max_events=1"
        )

    def _cast(self, draws: Draws, count: int, plot: tuple[int, ...]) -> tuple | None:
        """The looks of the objects, and [(object, kind, new colour)]; None if they do not fit."""
        drawn = [draws.pick(self._active if i in plot else self._still) for i in range(count)]
        looks = [dict(zip(self.vocabulary, values, strict=True)) for values in drawn]
        if count == 2 and all(looks[0][n] == looks[1][n] for n in ("shape", "colour")):
            return None
        happenings, now = [], [dict(look) for look in looks]
        gone: set[int] = set()
        for at, i in enumerate(plot):
            kind = now[i]["event"]
            if i in plot[:at]:
                kind = draws.pick(self.vocabulary["event"])
                if kind in (STILL, "appear", happenings[-1][1]) or i in gone:
                    return None
            now[i]["event"] = kind
            colour = None
            if kind == "recolour":
                colour = draws.pick(self.vocabulary["colour"])
                if colour == now[i]["colour"]:
                    return None
            # Twice: as it is when the event begins and, recoloured, when it is over.
            for after in (now[i]["colour"], colour or now[i]["colour"]):
                now[i]["colour"] = after
                if self._records.split != "test" and is_held_out(now[i], self.hold_out):
                    return None
            if count == 2 and all(now[0][n] == now[1][n] for n in ("shape", "colour")):
                return None
            if kind == "disappear":
                gone.add(i)
            happenings.append((i, kind, colour))
        return looks, happenings

    def _staged(self, draws: Draws, looks: list[dict], happenings: list) -> Clip | None:
        """The clip with places and times; None where an object would leave or touch another."""
        objects = []
        for look in looks:
            radius = round(draws.pick(RADII[look["size"]]) * _SCALE, 4)
            x, y = (radius + EDGE + (1 - 2 * (radius + EDGE)) * draws.uniform() for _ in "xy")
            attributes = {name: look[name] for name in ("shape", "colour", "size", "texture")}
            objects.append(SceneObject(**attributes, x=x, y=y, radius=radius))
        events = []
        for at, (i, kind, colour) in enumerate(happenings):
            begin, end = (self.frames * (at + k) // len(happenings) for k in (0, 1))
            if kind in MOVES:
                travel = _TRAVEL[0] + (_TRAVEL[1] - _TRAVEL[0]) * draws.uniform()
                events.append(Event(i, kind, begin, end - 1, travel))
            else:
                middle = (begin + end) // 2
                events.append(Event(i, kind, middle - 1, middle, colour=colour))
        background = draws.pick(self._backgrounds), draws.pick(self._background_colours)
        clip = Clip(tuple(objects), tuple(events), *background, self.frames)
        return clip if all(map(_has_room, map(clip.shown, range(self.frames)))) else None


def _first(draw: Callable[..., Found | None], *arguments: Any) -> Found | None:
    """What a draw gives once it is not None; None where it always is."""
    return next((found for _ in range(_TRIES) if (found := draw(*arguments)) is not None), None)


def _has_room(shown: dict[int, SceneObject]) -> bool:
    """Whether all objects of a frame lie inside it, apart from one another."""
    items = list(shown.values())
    for item in items:
        low, high = item.radius + EDGE, 1 - item.radius - EDGE
        if not (low <= item.x <= high and low <= item.y <= high):
            return False
    if len(items) < 2:
        return True
    a, b = items
    return (a.x - b.x) ** 2 + (a.y - b.y) ** 2 >= (a.radius + b.radius + EDGE) ** 2
