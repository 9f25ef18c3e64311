"""Named variants of a model: a table of frozen dataclasses, some of whose fields are overridden.

Raises `UserError` for a name or a field that is not known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from capjax.errors import UserError

V = TypeVar("V")


def resolve(
    what: str, variants: Mapping[str, V], name: str, where: str, overrides: Mapping[str, Any]
) -> V:
    """The variant of this name with some of its fields replaced.

    `what` is chosen ("CLIP variant") and `where` the overrides are given, both for messages.
    """
    if name not in variants:
        raise UserError(f"unknown {what} {name!r}: choose one of {', '.join(variants)}")
    fields = {field.name for field in dataclasses.fields(variants[name])}
    unknown = sorted(set(overrides) - fields)
    if unknown:
        raise UserError(
            f"unknown field {unknown[0]!r} in {where}: choose from {', '.join(sorted(fields))}"
        )
    return dataclasses.replace(variants[name], **dict(overrides))
