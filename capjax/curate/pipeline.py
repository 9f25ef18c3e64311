"""A pipeline: stages in order, what they read of a source and what is written; and its file.

A pipeline file is a straight Python script, as a config is:

    def get_pipeline(arg=""):
        arg = parse_arg(arg, words=20)            # pipeline.py:words=30
        return Pipeline(
            name="short captions",
            source={"key": str, "captions": list[str]},
            stages=(...),
            columns=("key", "caption"),
        )

`check` tells before anything runs which field is missing at which stage.
Raises `UserError` for stages that do not fit and for a file that holds no pipeline.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from capjax.curate import content
from capjax.curate.stage import MEMORY_ONLY, check_declared
from capjax.errors import UserError

SOURCE = "source"


class Segment(NamedTuple):
    """Stages that need one record at a time, between two that need all."""

    first: int  # number of its first stage
    stages: tuple[Any, ...]
    corpus: Any  # the stage of all records that follows, or None at the end


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """name: of the pipeline; source: the fields that it reads of a source's records, with types;
    columns: the fields that are written; seed: of everything random in it; read: how a record is
    had, read(source, index) -> fields, where source[index] would do more than is needed.
    """

    name: str
    stages: Sequence[Any]
    columns: Sequence[str]
    source: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"key": str})
    seed: int = 0
    read: Callable[[Any, int], Mapping[str, Any]] | None = None
    origin: str = ""  # the file and argument it was loaded from

    def __post_init__(self):
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "columns", tuple(self.columns))
        check(self)

    @property
    def types(self) -> dict[str, Any]:
        """The type of every field behind the last stage."""
        return fields_before(self, len(self.stages))

    def segments(self) -> list[Segment]:
        """The stages, cut behind each that needs all records."""
        found, first, held = [], 0, []
        for number, stage in enumerate(self.stages):
            if stage.place == "corpus":
                found.append(Segment(first, tuple(held), stage))
                first, held = number + 1, []
            else:
                held.append(stage)
        return [*found, Segment(first, tuple(held), None)]

    def settings(self) -> dict[str, Any]:
        """All that what comes out depends on, besides the source, in JSON values."""
        return {
            "pipeline": self.name,
            "seed": self.seed,
            "columns": {name: content.type_name(self.types[name]) for name in self.columns},
            "stages": [content.identity(stage) for stage in self.stages],
        }

    @property
    def fingerprint(self) -> str:
        """Of the settings, 16 hexadecimal digits."""
        text = json.dumps(self.settings(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def fields_before(pipeline: Pipeline, number: int) -> dict[str, Any]:
    """The fields, with their types, that stage `number` finds."""
    known = dict(pipeline.source)
    for stage in pipeline.stages[:number]:
        known |= stage.outputs
    return known


def fields_needed_from(pipeline: Pipeline, number: int) -> set[str]:
    """The fields that stage `number`, those behind it and the columns read."""
    needed = set(pipeline.columns) | {"key"}
    for stage in reversed(pipeline.stages[number:]):
        needed = (needed - stage.outputs.keys()) | stage.inputs.keys()
    return needed


def check(pipeline: Pipeline) -> None:
    """Raises UserError unless every field is there, with its type, where it is read."""
    if pipeline.source.get("key") is not str:
        raise UserError(f'pipeline {pipeline.name!r}: its source needs the field "key" of text')
    known = dict.fromkeys(pipeline.source, SOURCE)
    types = dict(pipeline.source)
    seen: set[str] = set()
    for stage in pipeline.stages:
        check_declared(stage)
        if stage.name in seen:
            raise UserError(
                f"pipeline {pipeline.name!r} has two stages called {stage.name!r}: rename one"
            )
        seen.add(stage.name)
        for field, kind in stage.inputs.items():
            where = f"stage {stage.name!r} reads the field {field!r}"
            if field not in known:
                raise UserError(
                    f"{where}, which neither the source nor a stage before it gives"
                    f"{_did_you_mean(field, known)}; there are {', '.join(sorted(known))}"
                )
            if object not in (kind, types[field]) and kind != types[field]:
                raise UserError(
                    f"{where} as {content.type_name(kind)}, and it is "
                    f"{content.type_name(types[field])} from {known[field]!r}"
                )
        for field, kind in stage.outputs.items():
            known[field], types[field] = stage.name, kind
    for field in pipeline.columns:
        if field not in known:
            raise UserError(
                f"pipeline {pipeline.name!r} is to write the column {field!r}, which no stage "
                f"gives{_did_you_mean(field, known)}; there are {', '.join(sorted(known))}"
            )
        if types[field] in MEMORY_ONLY:
            raise UserError(
                f"the column {field!r} of type {content.type_name(types[field])} cannot be "
                "written: pictures stay in their source, which the key leads to"
            )
    _check_barriers(pipeline)


def _check_barriers(pipeline: Pipeline) -> None:
    """What a later segment reads must be in the source, or be of a type that can be written."""
    for segment in pipeline.segments()[1:]:
        types = fields_before(pipeline, segment.first)
        for field in fields_needed_from(pipeline, segment.first):
            if types[field] in MEMORY_ONLY and made_by_stage(pipeline, field, segment.first):
                stage = pipeline.stages[segment.first - 1]
                raise UserError(
                    f"the field {field!r} of type {content.type_name(types[field])} is needed "
                    f"behind stage {stage.name!r}, which waits for all records, and cannot be kept "
                    "until then: make it behind that stage"
                )


def made_by_stage(pipeline: Pipeline, field: str, before: int) -> bool:
    """Whether a stage before number `before` gives the field; else it is the source's."""
    return any(field in stage.outputs for stage in pipeline.stages[:before])


def load(spec: str) -> Pipeline:
    """The pipeline of `path/to/file.py[:arg]`."""
    place, _, arg = spec.partition(":")
    path = Path(place)
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"pipeline file {place!r} does not exist or is not a Python file (.py)")
    description = importlib.util.spec_from_file_location(f"pipeline_{path.stem}", path)
    module = importlib.util.module_from_spec(description)
    try:
        description.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"pipeline file {place!r}, line {error.lineno}: {error.msg}") from error
    get = getattr(module, "get_pipeline", None)
    if get is None:
        raise UserError(f"pipeline file {place!r} does not define get_pipeline(arg)")
    if arg and not inspect.signature(get).parameters:
        raise UserError(f"pipeline file {place!r} takes no argument, but {arg!r} was given")
    made = get(arg) if inspect.signature(get).parameters else get()
    if not isinstance(made, Pipeline):
        raise UserError(f"get_pipeline of {place!r} gave a {type(made).__name__}, not a Pipeline")
    return dataclasses.replace(made, origin=f"{os.path.abspath(path)}:{arg}")


def _did_you_mean(name: str, names: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
