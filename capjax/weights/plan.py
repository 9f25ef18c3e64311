"""What importing a checkpoint needs to know of it, and how a family of checkpoints says so.

A family is a module of this package with two names:

    FAMILY                    what it is called, as in --family
    plan(source) -> Plan      sections of a run's config, and the table of names; raises
                              `NotThisFamily` with the reason where the checkpoint is another's

`source` is a `Source`: the tensors, without reading them, and the JSON files beside them. Sizes
come from config.json where there is one, and from the shapes of the tensors otherwise.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from capjax.errors import UserError
from capjax.weights.table import Table

CONFIG, TENSORS_FILE = "config.json", "model.safetensors"


class NotThisFamily(Exception):
    """The checkpoint is not of this family; the message says why, without a full stop."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A published checkpoint as it lies on disk."""

    folder: Path  # where the files beside the tensors are
    tensors: Mapping[str, np.ndarray]  # each is read when it is asked for
    config: Mapping[str, Any]  # of config.json, {} without one
    preprocessor: Mapping[str, Any]  # of preprocessor_config.json or its successor, likewise
    # A file or folder that the user has named instead of the files in `folder`.
    tokenizer: Path | None = None
    # `Plan.choices` of the import where the tensors' values are not at hand; None: they are.
    choices: Mapping[str, Any] | None = None

    def choose(self, name: str, decide: Callable[[], Any]) -> Any:
        """`decide()`, which may read tensors; at export what it said at import.

        There the tensors have shapes and types alone, so that no plan reads their values otherwise.
        """
        if self.choices is None:
            return decide()
        if name not in self.choices:
            raise UserError(
                f"{str(self.folder)!r} does not keep what the import found out ({name!r}): import "
                "the checkpoint again, or name it with --like"
            )
        return self.choices[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor; `NotThisFamily` if there is none of this name."""
        self.require(name)
        return tuple(self.tensors[name].shape)

    def require(self, *names: str) -> None:
        """Raises `NotThisFamily` unless there are tensors of all these names."""
        for name in names:
            if name not in self.tensors:
                raise NotThisFamily(f"it has no tensor {name!r}")

    def require_type(self, *types: str) -> None:
        """Raises `NotThisFamily` unless config.json's model_type is one of these, or not there."""
        found = self.config.get("model_type")
        if found is not None and found not in types:
            raise NotThisFamily(f"its model_type is {found!r}, not {' or '.join(types)}")

    def count(self, pattern: str) -> int:
        """How many layers: `pattern` holds {} for a number, from 0, in a tensor's name."""
        number = 0
        while pattern.format(number) in self.tensors:
            number += 1
        return number

    def file(self, *names: str) -> Path:
        """The user's tokenizer, or the first of these files that lies beside the tensors."""
        folder = self.folder
        if self.tokenizer is not None:
            if not self.tokenizer.is_dir():
                return self.tokenizer
            folder = self.tokenizer
        for name in names:
            if (folder / name).exists():
                return folder / name
        raise UserError(
            f"the tokenizer of {str(folder)!r} is not there ({' or '.join(names)}): put it "
            "beside the tensors, or name it with --tokenizer"
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a checkpoint becomes a run of capjax: sections of its config, and its table of names."""

    family: str
    model: Mapping[str, Any]  # config.model
    table: Table
    unread: tuple[str, ...] = ()  # regular expressions for tensors that no parameter needs
    tokenizer: Mapping[str, Any] | None = None  # config.tokenizer; None: it reads no text
    image: Mapping[str, Any] | None = None  # config.data.image_size and .resize; None: no pictures
    task: Mapping[str, Any] | None = None  # config.task; None: nothing to train it with as it is
    choices: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # see `Source.choose`
    # Names under which published files hold a tensor of the table once more, and its own name.
    copies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    file: str = TENSORS_FILE  # by which libraries find the tensors
    # JSON files by name, without which they do not, where the checkpoint was published so.
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, {} if there is no file; UserError if it is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{str(path)!r} holds no JSON object")
    return found


def holds_json(path: Path) -> bool:
    """Whether a tokenizer's file is a tokenizer.json, by its contents if its name does not say so.

    A run calls all of them tokenizer.model.
    """
    if path.suffix == ".json" or not path.is_file():
        return path.suffix == ".json"
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] == b"{"
