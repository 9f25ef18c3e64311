"""Names of classes: a list, a file of them, or those that occur in labelled data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from capjax.errors import UserError


def class_names(classes: Sequence[str] | str, data_labels: Sequence[str] = ()) -> tuple[str, ...]:
    """A list of classes; the path of a file of them (one a line, or a JSON list); or "" for the
    different labels of the data, sorted.

    Raises:
      UserError: an unreadable file, no classes, a class twice, or one that is no text.
    """
    where = "the classes"
    if isinstance(classes, str) and classes:
        where, classes = f"the classes {classes!r}", _read(classes)
    names = tuple(classes) or tuple(sorted(set(data_labels)))
    if not names:
        raise UserError(f"{where}: there are none; give at least two")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{where}: {name!r} is no class name: give words")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where}: {len(twice)} stand more than once ({', '.join(twice[:3])})")
    return names


def _read(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        if not path.endswith(".json"):
            return [line.strip() for line in text.splitlines() if line.strip()]
        content = json.loads(text)
    except OSError as error:
        raise UserError(f"cannot read the classes {path!r}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"the classes {path!r} are no UTF-8 text or JSON: {error}") from error
    if not isinstance(content, list):
        raise UserError(f"the classes {path!r} are no JSON list of strings")
    return content
