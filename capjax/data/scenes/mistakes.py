"""How much of a caption is wrong about a scene, by kind of claim."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from capjax.data.scenes.description import Clause, Description, Mention, clause_holds, placed
from capjax.data.scenes.graph import Scene, SceneObject, holds


@dataclass(slots=True)
class AttributeErrors:
    """How many claims of each kind a description makes, and how many of them are wrong.

    Kinds: shape, colour, size, texture, place, count, relation, background.
    """

    claimed: Counter = field(default_factory=Counter)
    wrong: Counter = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """The share of wrong claims; 0 when nothing was claimed."""
        return self.wrong.total() / max(1, self.claimed.total())


def attribute_errors(description: Description, scene: Scene) -> AttributeErrors:
    """Counts the claims and the wrong ones, giving the caption the benefit of the doubt.

    A clause that is true has none wrong. In any other the mentions are assigned to different
    objects such that the fewest attributes, places and relations are wrong, and counts are judged
    under that assignment. A mention for which no object is left has all its claims wrong, and a
    wrong count besides. For a group, every wrong attribute is one wrong claim.
    """
    errors = AttributeErrors()
    for name in ("background", "background_colour"):
        said = getattr(description, name)
        if said is not None:
            _tally(errors, "background", said != getattr(scene, name))
    objects = scene.objects
    for clause in description.clauses:
        true = clause_holds(clause, objects)
        chosen = None if true else _best_assignment(clause, objects)
        for at, mention in enumerate(clause.mentions):
            if chosen is None:
                _claim_all(errors, mention)
            else:
                item = None if chosen[at] is None else objects[chosen[at]]
                _judge(errors, mention, item, objects)
        for relation in clause.relations:
            wrong = chosen is not None and not _related(relation, chosen, objects)
            _tally(errors, "relation", wrong)
    return errors


def _tally(errors: AttributeErrors, kind: str, wrong: bool) -> None:
    errors.claimed[kind] += 1
    if wrong:
        errors.wrong[kind] += 1


def _claim_all(errors: AttributeErrors, mention: Mention) -> None:
    for name in mention.named:
        _tally(errors, name, False)
    if mention.is_group:
        _tally(errors, "count", False)
    for _ in mention.places:
        _tally(errors, "place", False)


def _judge(
    errors: AttributeErrors,
    mention: Mention,
    item: SceneObject | None,
    objects: tuple[SceneObject, ...],
) -> None:
    for name in mention.named:
        _tally(errors, name, item is None or getattr(item, name) != getattr(mention, name))
    group = [item] if item else []
    if mention.is_group:
        # The objects that the mention must mean: those like `item` in what is mentioned.
        group = [
            other
            for other in objects
            if item and all(getattr(other, n) == getattr(item, n) for n in mention.named)
        ]
        right = len(group) == mention.count if mention.exact else len(group) >= mention.count
        _tally(errors, "count", not right)
    elif item is None:
        _tally(errors, "count", True)
    for regions in mention.places:
        found = next((other for other in group if placed(regions, other)), None)
        _tally(errors, "place", found is None)
        if found:
            group.remove(found)


def _related(
    relation: tuple[int, str, int],
    chosen: Sequence[int | None],
    objects: tuple[SceneObject, ...],
) -> bool:
    i, name, j = relation
    a, b = chosen[i], chosen[j]
    return a is not None and b is not None and holds(objects[a], name, objects[b])


def _cost(mention: Mention, item: SceneObject | None) -> int:
    """Wrong claims if the mention means the item; for None, worse than any item."""
    if item is None:
        return len(mention.named) + len(mention.places) + 1
    wrong = sum(getattr(item, name) != getattr(mention, name) for name in mention.named)
    if mention.places:
        wrong += not any(placed(regions, item) for regions in mention.places)
    return wrong


def _best_assignment(clause: Clause, objects: tuple[SceneObject, ...]) -> Sequence[int | None]:
    """For every mention the object it most likely means (different ones), or None."""
    mentions = clause.mentions
    if clause.relations:  # two mentions: few enough pairs to try them all
        nobody: list[int | None] = [None] * len(mentions)
        return min(
            itertools.permutations([*range(len(objects)), *nobody], len(mentions)),
            key=lambda chosen: (
                sum(
                    _cost(m, None if i is None else objects[i])
                    for m, i in zip(mentions, chosen, strict=True)
                )
                + sum(not _related(r, chosen, objects) for r in clause.relations)
            ),
        )

    @cache
    def best(at: int, free: int) -> tuple[int, tuple[int | None, ...]]:
        """(cost, choices) of the mentions from `at` on, with the objects in the bit set `free`."""
        if at == len(mentions):
            return 0, ()
        rest, chosen = best(at + 1, free)
        result = (rest + _cost(mentions[at], None), (None, *chosen))
        for i, item in enumerate(objects):
            if free >> i & 1:
                rest, chosen = best(at + 1, free & ~(1 << i))
                total = rest + _cost(mentions[at], item)
                if total < result[0]:
                    result = (total, (i, *chosen))
        return result

    return best(0, (1 << len(objects)) - 1)[1]
