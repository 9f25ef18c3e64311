"""JSON objects of checkpoints, without the liberties that hide damage.

A name that stands twice is an error here; Python's own reader keeps the last.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from capjax.errors import UserError

MAX_BYTES = 100_000_000  # the limit of the safetensors format for its header


def json_object(data: bytes, path: Path, what: str) -> dict[str, Any]:
    """The object that `data` holds; `what` says in an error which part of the file it is.

    Raises:
      UserError: it is no JSON object, or a name stands twice in it.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in found if names.count(name) > 1)
            raise UserError(f"{what} of {str(path)!r} names {twice!r} twice: write the file anew")
        return found

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{what} of {str(path)!r} is not JSON ({error}): download the file again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{what} of {str(path)!r} is not a JSON object: download the file again")
    return value
