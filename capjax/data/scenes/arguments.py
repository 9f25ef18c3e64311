"""Checks of `Source`'s arguments: each returns the value to use, or raises `UserError`."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping

from capjax.data.scenes.grammar import REGISTERS, Vocabulary
from capjax.errors import UserError


def choices(name: str, given: Iterable[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise UserError(f"scenes: {name}={given!r} must be a list; write ({given!r},)")
    try:
        values = tuple(given)
    except TypeError:
        raise UserError(f"scenes: {name}={given!r} must be a list of names") from None
    for value in values:
        if value not in allowed:
            raise UserError(f"scenes: {name} has no {value!r}; choose from {', '.join(allowed)}")
    if not values or len(set(values)) != len(values):
        raise UserError(f"scenes: {name}={values!r} must name each value once, and at least one")
    return values


def integer(name: str, value: int, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        raise UserError(f"scenes: {name}={value!r} must be an integer from {low} to {high}")
    return number


def fraction(name: str, value: float, high: float) -> float:
    if not isinstance(value, int | float) or not 0.0 <= value <= high:
        raise UserError(f"scenes: {name}={value!r} must be a number from 0 to {high}")
    return float(value)


def zoom(value: float, max_objects: int) -> float:
    if not isinstance(value, int | float) or not 1.0 <= value <= 1.8:
        raise UserError(f"scenes: zoom={value!r} must be a number from 1 to 1.8")
    if value > 1 and max_objects > 1:
        raise UserError(f"scenes: zoom={value!r} has no room for more objects: set max_objects=1")
    return float(value)


def hold_out(given: Iterable[Iterable[str]], vocabulary: Vocabulary) -> tuple[dict, ...]:
    """Each combination as {attribute: value}."""
    attribute_of = {value: name for name, values in vocabulary.items() for value in values}
    result = []
    for combination in given:
        if isinstance(combination, str):
            raise UserError(
                f"scenes: hold_out entry {combination!r} must be a tuple such as ('red', 'circle')"
            )
        wanted: dict[str, str] = {}
        for value in combination:
            if value not in attribute_of:
                raise UserError(
                    f"scenes: hold_out has {value!r}, which this source does not draw; choose from "
                    + ", ".join(attribute_of)
                )
            if attribute_of[value] in wanted:
                raise UserError(
                    f"scenes: hold_out entry {tuple(combination)!r} names two values of "
                    f"{attribute_of[value]}; make it two entries"
                )
            wanted[attribute_of[value]] = value
        if not wanted:
            raise UserError("scenes: hold_out has an empty entry; name at least one value in it")
        result.append(wanted)
    return tuple(result)


def combinations(
    vocabulary: Vocabulary, hold_out: tuple[dict, ...], split: str
) -> tuple[tuple[str, str, str, str], ...]:
    names = ("shape", "colour", "size", "texture")
    every = itertools.product(*(vocabulary[name] for name in names))
    if not hold_out:
        return tuple(every)

    def held(look: tuple[str, ...]) -> bool:
        values = dict(zip(names, look, strict=True))
        return any(all(values[n] == v for n, v in wanted.items()) for wanted in hold_out)

    chosen = tuple(look for look in every if held(look) == (split == "test"))
    if not chosen:
        raise UserError("scenes: hold_out leaves nothing to draw for train; hold out fewer")
    return chosen


def registers(
    captions: str | Mapping[str, float], per_image: int | None
) -> tuple[list[str], list[float] | None, int]:
    """(names, probabilities, captions per image); with counts, a name per caption and None."""
    try:
        given = {captions: 1.0} if isinstance(captions, str) else dict(captions)
    except (TypeError, ValueError):
        raise UserError(
            f"scenes: captions={captions!r} must be a register or a dict of registers"
        ) from None
    choices("captions", list(given), tuple(REGISTERS))
    # The grammar's order: a config that sorts its fields must give the same captions.
    given = {name: given[name] for name in REGISTERS if name in given}
    counts = all(isinstance(v, int) and not isinstance(v, bool) for v in given.values())
    if counts and all(value >= 0 for value in given.values()) and sum(given.values()):
        names = [name for name, count in given.items() for _ in range(count)]
        if per_image is not None and per_image != len(names):
            raise UserError(
                f"scenes: captions={given!r} are counts, {len(names)} in all, but "
                f"captions_per_image={per_image}; leave it out, or write probabilities as floats"
            )
        return names, None, len(names)
    weights = list(given.values())
    numbers = all(
        isinstance(w, int | float) and not isinstance(w, bool) and w >= 0 for w in weights
    )
    if not numbers or abs(sum(weights) - 1) > 1e-6:
        raise UserError(
            f"scenes: captions={given!r} must be floats that sum to 1 (probabilities) "
            "or integers (counts)"
        )
    number = 5 if per_image is None else integer("captions_per_image", per_image, 1, 1000)
    return list(given), weights, number
