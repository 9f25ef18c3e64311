"""Sentences around class names, for zero-shot classification by a contrastive encoder.

A template holds "{}" where the name goes. `GENERAL` are of our own wording, in the spirit of the
ensembles of Radford et al. 2021 (CLIP, arXiv 2103.00020, section 3.1.4): numbers reported with them
are not comparable with those of CLIP's own 80. `load` reads a user's, such as those.
Raises `UserError` for a file that cannot be read, holds no template, or one without "{}".
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from capjax.errors import UserError

PLACE = "{}"

GENERAL = (
    "{}.",
    "a photograph that shows a {}.",
    "a picture with one {} in the middle.",
    "here we see a {}.",
    "an image with a {} in it.",
    "a snapshot of one {}.",
    "several {} in one picture.",
    "a {} seen from close by.",
    "a {} seen from far away.",
    "a {} in bright light.",
    "a {} at night.",
    "a sharp photograph of the {}.",
    "a grainy photograph of a {}.",
    "a {}, partly hidden.",
    "a big {}.",
    "a little {}.",
    "a {} drawn in pencil.",
    "a painted {}.",
    "a toy that looks like a {}.",
    "a {} on an old monochrome picture.",
)


def resolve(templates: Iterable[str] | str) -> tuple[str, ...]:
    """Templates as a config gives them: sentences, a file of them, or "" for the general ones."""
    if not isinstance(templates, str):
        return check(templates)
    return load(templates) if templates else GENERAL


def load(path: str | Path) -> tuple[str, ...]:
    """The templates of a file: one a line, or, if it is named *.json, a list of strings."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the templates {str(path)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the templates {str(path)!r} are not UTF-8 text") from error
    if path.suffix == ".json":
        try:
            lines = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"the templates {str(path)!r} are not JSON: {error}") from error
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise UserError(f"the templates {str(path)!r} must be a JSON list of strings")
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
    return check(lines, f"the templates {str(path)!r}")


def check(templates: Iterable[str], where: str = "the templates") -> tuple[str, ...]:
    """The templates, if there are some and each has a place for the name; UserError otherwise."""
    templates = tuple(templates)
    if not templates:
        raise UserError(f"{where}: there are none; give at least one, such as 'a photo of a {{}}.'")
    for template in templates:
        if PLACE not in template:
            raise UserError(
                f"{where}: {template!r} has no {PLACE} where the class name goes: write it there"
            )
    return templates


def fill(template: str, name: str) -> str:
    """The template about one class; other braces stay as they are."""
    return template.replace(PLACE, name)
