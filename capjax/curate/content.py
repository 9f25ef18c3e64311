"""The key under which a stage's result is kept: a hash of all that the result depends on.

These are the stage's name, version, params and outputs, and the values of its inputs. A stage whose
prompt changes has other keys; so have the stages that read what it writes, where that changed; all
others find their results again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from capjax.curate.stage import Fields
from capjax.errors import UserError


def identity(stage: Any) -> dict[str, Any]:
    """What a stage is, in JSON values."""
    return {
        "name": stage.name,
        "version": stage.version,
        "params": json.loads(json.dumps(dict(stage.params))),
        "inputs": {name: type_name(kind) for name, kind in stage.inputs.items()},
        "outputs": {name: type_name(kind) for name, kind in stage.outputs.items()},
    }


def stage_key(stage: Any) -> str:
    """A hash of what a stage is."""
    return _hash(identity(stage))


def content_key(stage_key: str, fields: Fields) -> str:
    """The key of a stage's result on these fields."""
    return _hash([stage_key, dict(fields)])


def type_name(kind: Any) -> str:
    """Of a declared type, such as list[str]."""
    return str(kind) if str(kind).startswith("list[") else kind.__name__


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    """A JSON value that tells apart what differs."""
    if isinstance(value, np.ndarray):
        # The bytes of an array in C order are its values; shape and type make them unique.
        sums = hashlib.blake2b(np.ascontiguousarray(value), digest_size=16).hexdigest()
        return {"array": [str(value.dtype), list(value.shape), sums]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return {"bytes": hashlib.blake2b(value, digest_size=16).hexdigest()}
    if isinstance(value, frozenset | set):
        return {"set": sorted(value)}
    if dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {type(value).__name__: held}
    raise UserError(
        f"a cached stage reads a {type(value).__name__}, whose content has no key: give it text, "
        "numbers, lists, dicts, arrays or dataclasses"
    )
