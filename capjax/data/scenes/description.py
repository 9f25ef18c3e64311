"""What a caption claims about a scene, and which scenes it is true of.

A `Description` holds clauses that must each be true of the scene by themselves. A clause holds
mentions, which speak of different objects, and relations between them:

    "a red circle"        one or more objects are red circles      count 1, not exact
    "shapes"              two or more objects                      count 2, not exact
    "two red circles"     exactly two objects are red circles      count 2, exact
    "a star on the left"  some star's centre is in the left region

An attribute that is not mentioned is None and fits anything.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from capjax.data.scenes.graph import Scene, SceneObject, holds

ATTRIBUTES = ("shape", "colour", "size", "texture")


@dataclass(frozen=True, slots=True)
class Mention:
    """Constraints on one object, or on a group of alike ones.

    `places` is empty or holds one set of regions for each of the `count` objects.
    """

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    texture: str | None = None
    count: int = 1
    exact: bool = False
    places: tuple[frozenset[str], ...] = ()

    def fits(self, item: SceneObject) -> bool:
        """Whether the object has all mentioned attributes (places aside)."""
        return (
            (self.colour is None or self.colour == item.colour)
            and (self.shape is None or self.shape == item.shape)
            and (self.size is None or self.size == item.size)
            and (self.texture is None or self.texture == item.texture)
        )

    @property
    def is_group(self) -> bool:
        """Whether it speaks of all objects that fit, and of their number."""
        return self.exact or self.count > 1

    @property
    def named(self) -> tuple[str, ...]:
        """The attributes that are mentioned."""
        return tuple(name for name in ATTRIBUTES if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True)
class Clause:
    """Mentions of different objects; relations are (mention, relation, mention) by position."""

    mentions: tuple[Mention, ...]
    relations: tuple[tuple[int, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """All that one caption claims."""

    clauses: tuple[Clause, ...]
    background: str | None = None
    background_colour: str | None = None

    @property
    def mentions_attribute(self) -> bool:
        """Whether a shape, colour, size or texture of any object is named."""
        return any(mention.named for clause in self.clauses for mention in clause.mentions)


def matches(description: Description, scene: Scene) -> bool:
    """Whether everything the description claims is true of the scene."""
    if description.background not in (None, scene.background):
        return False
    if description.background_colour not in (None, scene.background_colour):
        return False
    return all(clause_holds(clause, scene.objects) for clause in description.clauses)


def placed(regions: frozenset[str], item: SceneObject) -> bool:
    """Whether the object lies in all of the regions."""
    return regions.issubset(item.regions)


def _group_holds(mention: Mention, group: list[SceneObject]) -> bool:
    """Whether the fitting objects are as many as said, and at the places said."""
    if len(group) != mention.count if mention.exact else len(group) < mention.count:
        return False
    if not mention.places:
        return True
    return any(
        all(placed(regions, item) for regions, item in zip(mention.places, order, strict=False))
        for order in itertools.permutations(group, len(mention.places))
    )


def clause_holds(clause: Clause, objects: tuple[SceneObject, ...]) -> bool:
    """Whether the mentions can mean different objects such that all is true."""
    free = set(range(len(objects)))
    options: list[list[int]] = []  # per mention; one entry for groups, which take all that fit
    for mention in clause.mentions:
        fitting = [i for i, item in enumerate(objects) if mention.fits(item)]
        if mention.is_group:
            if not _group_holds(mention, [objects[i] for i in fitting]):
                return False
            if len(clause.mentions) > 1:
                if not free.issuperset(fitting):
                    return False
                free.difference_update(fitting)
            options.append(fitting[:1])
        else:
            if mention.places:
                fitting = [i for i in fitting if placed(mention.places[0], objects[i])]
            if not fitting:
                return False
            options.append(fitting)
    single = [not mention.is_group for mention in clause.mentions]
    if len(single) == 1:
        return True

    def assign(at: int, chosen: tuple[int, ...]) -> bool:
        if at == len(options):
            return all(
                holds(objects[chosen[i]], relation, objects[chosen[j]])
                for i, relation, j in clause.relations
            )
        for i in options[at]:
            if single[at] and (i not in free or i in chosen):
                continue
            if assign(at + 1, (*chosen, i)):
                return True
        return False

    return assign(0, ())
