"""A stage: what is done to a record, and all that its result depends on.

    Stage("shorten", shorten, inputs={"caption": str}, outputs={"caption": str},
          params={"words": 20})

A stage sees the fields that it declares and no other, so that its result can be kept under their
values (`content`). It gives its outputs for the record; a list of such, for several records; or
None, for none. Every stage has these attributes:

    name, inputs, outputs    fields -> type: str, int, float, bool, bytes, dict (JSON), np.ndarray,
                             list[str], list[int], list[float], or `object` for any. None is a value
                             of every type.
    version                  to be raised when the code changes what comes out
    params                   JSON values on which the result depends besides the fields
    cached                   results are kept by content: for what is expensive
    place                    where it runs, one of PLACES

and, by its place, one way to be called:

    here, threads, processes    stage(fields) -> result      threads for what waits, processes for
                                                             what computes in Python
    worker                      start(), then batch([fields]) -> [result]: a model, loaded once in a
                                process that lives as long as the run; stages with the same `worker`
                                share one
    server                      async answer(fields, ledger) -> result: many calls under way at once
    corpus                      corpus({field: [values]}) -> [result or None]: needs all records

`Stage` makes one of a function; the others are classes of their own, with no common base.
Raises `UserError` for a declaration that cannot be and for a result that is not what was declared.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from capjax.errors import UserError

PLACES = ("here", "threads", "processes", "worker", "server", "corpus")
SCALARS = {str: "text", int: "an integer", float: "a number", bool: "true or false"}
LISTS = {list[str]: str, list[int]: int, list[float]: float}
MEMORY_ONLY = (np.ndarray, bytes, object)  # never written: read again from the source
TYPES = (*SCALARS, *LISTS, dict, *MEMORY_ONLY)

Fields = Mapping[str, Any]
Result = Fields | Sequence[Fields] | None


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a function that takes the inputs and the params as keyword arguments."""

    name: str
    function: Callable[..., Result]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    version: str = "1"
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    place: str = "here"
    cached: bool = False

    def __post_init__(self):
        both = sorted(self.inputs.keys() & self.params.keys())
        if both:
            raise UserError(f"stage {self.name!r} has {both[0]!r} as an input and as a parameter")
        if self.place not in PLACES[:3]:
            raise UserError(f"stage {self.name!r}: a function runs in {', '.join(PLACES[:3])}")

    def __call__(self, fields: Fields) -> Result:
        return self.function(**fields, **self.params)


def check_declared(stage: Any) -> None:
    """Raises UserError for a stage whose declaration cannot be."""
    where = f"stage {getattr(stage, 'name', stage)!r}"
    for name in ("name", "inputs", "outputs", "version", "params", "cached", "place"):
        if not hasattr(stage, name):
            raise UserError(f"{where} has no attribute {name!r}: see capjax.curate.stage")
    if stage.place not in PLACES:
        raise UserError(f"{where}: place={stage.place!r} is none of {', '.join(PLACES)}")
    for side in (stage.inputs, stage.outputs):
        for field, kind in side.items():
            if kind not in TYPES:
                raise UserError(f"{where}: the field {field!r} has the unknown type {kind!r}")
    if stage.cached:
        for field, kind in stage.outputs.items():
            if kind in MEMORY_ONLY:
                raise UserError(
                    f"{where} is cached, and its output {field!r} of type {kind.__name__} cannot "
                    "be kept: leave it out, or set cached=False"
                )
    try:
        json.dumps(dict(stage.params), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: params must be JSON values ({error})") from error


def as_results(stage: Any, result: Result) -> list[dict[str, Any]]:
    """The result as a list of outputs, each checked and with numbers of the declared type."""
    if result is None:
        return []
    many = [result] if isinstance(result, Mapping) else result
    if isinstance(many, str) or not isinstance(many, Sequence):
        raise UserError(
            f"stage {stage.name!r} gave a {type(result).__name__}: give its outputs as a dict, a "
            "list of dicts, or None to drop the record"
        )
    return [_checked(stage, one) for one in many]


def _checked(stage: Any, given: Fields) -> dict[str, Any]:
    if given.keys() != stage.outputs.keys():
        wrong = sorted(given.keys() ^ stage.outputs.keys())[0]
        told = "does not declare" if wrong in given else "did not give"
        raise UserError(f"stage {stage.name!r} {told} the output {wrong!r}")
    return {
        field: value if value is None else _typed(stage, field, value)
        for field, value in given.items()
    }


def _typed(stage: Any, field: str, value: Any) -> Any:
    kind = stage.outputs[field]
    if kind is object or type(value) is kind:
        return value
    if kind in LISTS:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, list | tuple):
            return [_scalar(stage, field, LISTS[kind], one) for one in value]
    elif kind in SCALARS:
        return _scalar(stage, field, kind, value)
    elif isinstance(value, kind):
        return value
    raise _not(stage, field, kind, value)


def _scalar(stage: Any, field: str, kind: type, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    whole = isinstance(value, int) and not isinstance(value, bool)
    if type(value) is kind or (kind is float and whole):
        return kind(value)
    raise _not(stage, field, kind, value)


def _not(stage: Any, field: str, kind: Any, value: Any) -> UserError:
    name = getattr(kind, "__name__", str(kind)) if kind not in LISTS else str(kind)
    return UserError(
        f"stage {stage.name!r}: the output {field!r} is declared as {name} and is a "
        f"{type(value).__name__}"
    )
