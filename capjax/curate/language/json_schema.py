"""The part of JSON Schema that answers of language models need, checked without a dependency.

type (one, or a list), properties, required, additionalProperties (true or false), items, enum,
minimum, maximum, minLength, maxLength, minItems, maxItems; `description` and `title` are passed on
to the model. Any other keyword is refused: a rule that is not checked is worse than none.

Raises `UserError` for such a schema; `problem` gives a sentence for a value that does not fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from capjax.errors import UserError

_TYPES = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
_LIMITS = {
    "minimum": (lambda value, limit: value >= limit, "below"),
    "maximum": (lambda value, limit: value <= limit, "above"),
    "minLength": (lambda value, limit: len(value) >= limit, "shorter than"),
    "maxLength": (lambda value, limit: len(value) <= limit, "longer than"),
    "minItems": (lambda value, limit: len(value) >= limit, "shorter than"),
    "maxItems": (lambda value, limit: len(value) <= limit, "longer than"),
}
_APPLIES = {
    "minimum": (int, float),
    "maximum": (int, float),
    "minLength": str,
    "maxLength": str,
    "minItems": list,
    "maxItems": list,
}
_OTHERS = {"type", "properties", "required", "additionalProperties", "items", "enum"}
_WORDS = {"description", "title"}
_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)


def check_schema(schema: Any, where: str = "the schema") -> None:
    """Raises UserError for a schema with a keyword or a type that is not checked here."""
    if not isinstance(schema, Mapping):
        raise UserError(f"{where} is a {type(schema).__name__}: give a dict")
    unknown = schema.keys() - _LIMITS.keys() - _OTHERS - _WORDS
    if unknown:
        raise UserError(f"{where} has the keyword {min(unknown)!r}, which is not checked")
    for name in _types_of(schema):
        if name not in _TYPES:
            raise UserError(f"{where} has the type {name!r}: choose from {', '.join(_TYPES)}")
    for name, own in schema.get("properties", {}).items():
        check_schema(own, f"{where}.{name}")
    if "items" in schema:
        check_schema(schema["items"], f"{where}[]")


def parse(text: str, schema: Mapping[str, Any]) -> tuple[Any, str]:
    """(value, problem), of which one is empty; the JSON may stand within a code fence."""
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return None, f"it is not JSON ({error})"
    found = problem(value, schema)
    return (None, found) if found else (value, "")


def problem(value: Any, schema: Mapping[str, Any], where: str = "the answer") -> str:
    """What does not fit, in a sentence; "" if the value fits."""
    names = _types_of(schema)
    if names and not any(_is(value, name) for name in names):
        return f"{where} must be of type {' or '.join(names)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {json.dumps(schema['enum'], ensure_ascii=False)}"
    for keyword, (holds, told) in _LIMITS.items():
        applies = isinstance(value, _APPLIES[keyword]) and not isinstance(value, bool)
        if keyword in schema and applies and not holds(value, schema[keyword]):
            return f"{where} is {told} {schema[keyword]}"
    if isinstance(value, dict):
        return _object_problem(value, schema, where)
    if isinstance(value, list) and "items" in schema:
        problems = (problem(v, schema["items"], f"{where}[{i}]") for i, v in enumerate(value))
        return next(filter(None, problems), "")
    return ""


def _object_problem(value: dict, schema: Mapping[str, Any], where: str) -> str:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where} lacks {name!r}"
    if schema.get("additionalProperties") is False and value.keys() - known.keys():
        return f"{where} has {min(value.keys() - known.keys())!r}, which was not asked for"
    problems = (problem(value[n], known[n], f"{where}.{n}") for n in value.keys() & known.keys())
    return next(filter(None, problems), "")


def _types_of(schema: Mapping[str, Any]) -> list[str]:
    names = schema.get("type", [])
    return [names] if isinstance(names, str) else list(names)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
