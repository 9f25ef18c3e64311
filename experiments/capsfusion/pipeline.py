"""CapsFusion's stages: two texts made ready, fused by a language model, checked; and afterwards.

    ready(empty_caption)     single spaces; a record without any text is bad
    FitPrompt                see `budget`
    fuse(model, template)    Ask, with what needs no model, and what is no fusion
    first_sentence(text)     what the authors' pretrained models need before they are scored

`Bare` is the prompt of a fuser that was fine-tuned on nothing else: the two texts with a mark
between them, and no instruction that a text could countermand.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from capjax.curate.language.ask import Ask
from capjax.curate.language.request import Message
from capjax.curate.language.templates import Template
from capjax.curate.stage import Fields, Stage
from capjax.errors import BadRecord, UserError

BETWEEN, CUE = " | ", " =>"
EMPTY_CAPTIONS = ("alt_text", "error")


def bare_prompt(alt_text: str, caption: str) -> str:
    """The prompt of `Bare`; a fuser's training text goes on with a space and the fused caption."""
    return f"{alt_text}{BETWEEN}{caption}{CUE}".strip()


@dataclasses.dataclass(frozen=True)
class Bare(Template):
    """A template of alt_text and caption without any words of its own."""

    name: str = "bare"
    version: str = "1"
    inputs: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"alt_text": str, "caption": str}
    )
    system: str = ""
    user: str = "{alt_text}" + BETWEEN + "{caption}" + CUE

    def messages(self, fields: Fields) -> tuple[Message, ...]:
        """An empty system message and the prompt."""
        for name in self.inputs:
            if fields[name] is None:
                raise BadRecord(str(fields.get("key", "")), f"the field {name!r} has no value")
        prompt = bare_prompt(fields["alt_text"], fields["caption"])
        return {"role": "system", "content": ""}, {"role": "user", "content": prompt}


def ready(empty_caption: str = "alt_text") -> Stage:
    """Both texts with single spaces; an empty synthetic caption is replaced or an error."""
    if empty_caption not in EMPTY_CAPTIONS:
        raise UserError(
            f"empty_caption={empty_caption!r} must be one of {', '.join(EMPTY_CAPTIONS)}"
        )
    return Stage(
        "ready",
        _ready,
        {"key": str, "alt_text": str, "captions": list[str]},
        {"alt_text": str, "caption": str},
        params={"empty_caption": empty_caption},
    )


def _ready(
    key: str, alt_text: str | None, captions: list[str] | None, empty_caption: str
) -> Mapping[str, str]:
    caption = captions[0] if captions else ""
    for name, text in (("alt_text", alt_text), ("caption", caption)):
        if text is not None and not isinstance(text, str):
            raise BadRecord(key, f"its {name} is a {type(text).__name__}, no text")
    alt_text, caption = " ".join((alt_text or "").split()), " ".join((caption or "").split())
    if not caption:
        if empty_caption == "error" or not alt_text:
            raise BadRecord(key, "it has no synthetic caption")
        caption, alt_text = alt_text, ""  # the one text that there is, with nothing to fuse
    return {"alt_text": alt_text, "caption": caption}


def fuse(
    model: Any, template: Template | str = "fuse", *, max_tokens: int = 80, always: bool = False
) -> Ask:
    """Gives `fused`. Where there is no alt-text, and where the model refuses or twice is cut at
    its longest length or gives what is no fusion, that is the synthetic caption; `fuse_status`
    tells which, and the report counts them. always: also ask where there is no alt-text.
    """
    return Ask(
        "fuse",
        model,
        template,
        output="fused",
        fallback="caption",
        accept=no_fusion,
        skip=None if always else _nothing_to_fuse,
        max_tokens=max_tokens,
    )


def no_fusion(fields: Fields, outputs: Mapping[str, Any]) -> str:
    """Why the answer cannot be used, or "" if it can: the two texts behind each other are none."""
    first, second, fused = (
        re.findall(r"\w+", text.lower())
        for text in (fields["alt_text"], fields["caption"], outputs["fused"])
    )
    if fused in (first + second, second + first):
        return "it is the two texts one behind the other, instead of one new sentence"
    return ""


def _nothing_to_fuse(fields: Fields) -> Mapping[str, Any] | None:
    return None if fields["alt_text"] else {"fused": fields["caption"]}


def first_sentence(text: str) -> str:
    """Up to the end of the first sentence or line: a pretrained model does not stop by itself."""
    line = text.strip().split("\n", 1)[0]
    found = re.match(r".*?[.!?](?=\s|$)", line)
    return (found[0] if found else line).strip()
