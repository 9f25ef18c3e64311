"""Which members of a WebDataset record are its picture, captions, class and other fields.

A caption is named by where it stands: an extension whose content is text, or a field of JSON.

    "txt"            the file is one caption, on one line; several lines are refused, because
    "txt:lines"      each line may be a caption, or
    "txt:joined"     all lines one caption: web texts hold line breaks
    "json:caption"   that field, a string or a list of strings

Two more members are read where a record has them: `cls`, the number of its class, and `json`, whose
other fields stay with the record, but for the names in `RESERVED`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from capjax.data.folder import SUFFIXES
from capjax.data.loader import NUMBERS
from capjax.data.tar_index import Signature
from capjax.errors import BadRecord, UserError

IMAGES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
# These mean something to the loop. What a set calls "source" is hardly the number of a mixture's
# source, and its class is `cls`.
RESERVED = frozenset({"key", "image", "captions", *NUMBERS})

_CLASS, _JSON = "cls", "json"
_SHOWN = 6  # members named in a message


class Plan(NamedTuple):
    """Which members of a signature are read, by their numbers in it."""

    image: int
    captions: tuple[int, ...]  # one for each place of a caption
    others: tuple[int, ...]  # cls and json


class Fields:
    """How a record is read from its members.

    caption: one place of captions or several, all of which a record must have; None for records
    without captions. image: the picture's extension where a record has several.

    Raises `UserError` for a place of captions that cannot be.
    """

    def __init__(self, caption: str | Sequence[str] | None, image: str | None = None):
        given = [] if caption is None else [caption] if isinstance(caption, str) else list(caption)
        self.places = [_place(text) for text in given]
        if caption is not None and not given:
            raise UserError("caption=[] names no caption; leave it out, or use None for none")
        self.image = None if image is None else image.removeprefix(".").lower()

    def plan(self, signature: Signature) -> Plan | str:
        """What is read of a record of this signature, or why it cannot be used."""
        number = {extension: n for n, (extension, _) in enumerate(signature.members)}
        if signature.flaw:
            return signature.flaw
        shown = ", ".join(f".{extension}" for extension in list(number)[:_SHOWN])
        shown += f" and {len(number) - _SHOWN:,} more" if len(number) > _SHOWN else ""
        images = [e for e in number if e == self.image or (self.image is None and e in IMAGES)]
        captions = [extension for extension, _ in self.places]
        if not images:
            has = "a caption and no" if captions and set(captions) <= set(number) else "no"
            what = "picture" if self.image is None else f".{self.image}"
            return f"has {has} {what} (it has {shown})"
        if len(images) > 1:
            names = " and ".join(f".{name}" for name in images)
            return f"has several pictures, {names}: choose with image={images[0]!r}"
        for extension in captions:
            if extension not in number:
                return f"has a picture and no .{extension} (it has {shown})"
        others = [name for name in (_CLASS, _JSON) if name in number]
        for extension in (*images, *captions, *others):
            if flaw := signature.members[number[extension]][1]:
                return f"has a .{extension} that {flaw}"
        return Plan(
            number[images[0]],
            tuple(number[extension] for extension in captions),
            tuple(number[extension] for extension in others),
        )

    def captions(self, key: str, contents: Sequence[bytes]) -> list[str]:
        """The captions of the contents of `Plan.captions`; raises `BadRecord`."""
        found: list[str] = []
        for (extension, how), content in zip(self.places, contents, strict=True):
            if _is_json(extension):
                found += _captions_of_json(key, extension, how, _parse(key, extension, content))
            else:
                found += _captions_of_text(key, extension, how, _text(key, extension, content))
        return found

    def others(self, key: str, signature: Signature, plan: Plan, contents: Sequence[bytes]) -> dict:
        """`class_id` and the fields of the JSON from the contents of `Plan.others`."""
        fields: dict[str, Any] = {}
        for number, content in zip(plan.others, contents, strict=True):
            extension = signature.members[number][0]
            if extension == _CLASS:
                text = _text(key, extension, content).strip()
                if not (text.isascii() and text.isdigit() and int(text) < 2**31):
                    raise BadRecord(key, f"its .cls is {text[:40]!r}, not the number of a class")
                fields["class_id"] = int(text)
            else:
                used = {field for place, field in self.places if place == extension}
                used |= RESERVED
                parsed = _parse(key, extension, content)
                fields |= {name: value for name, value in parsed.items() if name not in used}
        return fields


def _place(text: str) -> tuple[str, str]:
    """(extension, field of the JSON or how lines are read)."""
    if not isinstance(text, str):
        raise UserError(f"caption={text!r} is no string such as 'txt' or 'json:caption'")
    extension, colon, how = text.partition(":")
    extension = extension.removeprefix(".").lower()
    if not extension or (colon and not how):
        raise UserError(f"caption={text!r} names no caption; 'txt' or 'json:caption' would")
    if _is_json(extension):
        if not how:
            raise UserError(f"caption={text!r} names no field; write {extension + ':caption'!r}")
    elif how not in ("", "lines", "joined"):
        raise UserError(
            f"caption={text!r}: what follows .{extension} is 'lines' or 'joined', not {how!r}"
        )
    return extension, how


def _is_json(extension: str) -> bool:
    return extension.rpartition(".")[2] == "json"


def _text(key: str, extension: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRecord(key, f"its .{extension} is not UTF-8 (byte {error.start + 1})") from None


def _parse(key: str, extension: str, content: bytes) -> dict[str, Any]:
    text = _text(key, extension, content)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRecord(key, f"its .{extension} is not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise BadRecord(key, f"its .{extension} is a JSON {type(fields).__name__}, not an object")
    return fields


def _captions_of_text(key: str, extension: str, how: str, text: str) -> list[str]:
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    if not lines:
        raise BadRecord(key, f"its .{extension} holds no caption")
    if how == "lines" or len(lines) == 1:
        return lines
    if how == "joined":
        return [" ".join(lines)]
    raise BadRecord(
        key,
        f"its .{extension} has {len(lines)} lines: say caption='{extension}:lines' where each is a "
        f"caption, or '{extension}:joined' where they are one",
    )


def _captions_of_json(key: str, extension: str, field: str, fields: dict[str, Any]) -> list[str]:
    if field not in fields:
        has = ", ".join(map(repr, list(fields)[:_SHOWN])) or "none"
        raise BadRecord(key, f"its .{extension} lacks the field {field!r}; it has {has}")
    value = fields[field]
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise BadRecord(
            key,
            f"its .{extension} has {field!r} of type {type(value).__name__}, not a string or a "
            "list of strings",
        )
    captions = [stripped for text in captions if (stripped := text.strip())]
    if not captions:
        raise BadRecord(key, f"its .{extension} has no caption in {field!r}")
    for text in captions:
        try:  # half a surrogate pair is JSON, but could be neither tokenized nor written
            text.isascii() or text.encode("utf-8")
        except UnicodeEncodeError:
            raise BadRecord(key, f"its .{extension} has half a character in {field!r}") from None
    return captions
