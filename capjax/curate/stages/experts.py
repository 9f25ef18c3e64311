"""Vision experts: what is asked about a picture, as stages that read `image`.

    captions        capjax.curate.stages.captioning.Caption    a captioner of ours
    tags            capjax.curate.stages.tagging.Tag           an encoder of ours
    CLIPScore       capjax.curate.stages.encoding.ClipScore    an encoder of ours
    detections      detector(model)
    text (OCR)      reader(model)
    answers (VQA)   answerer(model)
    captions        describer(model)

There is no detector, reader or answerer among the models of this package, so that those here ask a
model that sees, on any server of OpenAI's protocol (`capjax.curate.language.server`); detections
and text come in JSON that is checked against a schema. What such a model says of a picture is as
good as the model: its name stands beside every answer (`NAME_model`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capjax.curate.language.ask import Ask
from capjax.curate.stage import Fields

_DETECTIONS = {
    "type": "object",
    "properties": {
        "objects": {"type": "array", "items": {"type": "string", "minLength": 1}},
        "boxes": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}},
    },
    "required": ["objects", "boxes"],
    "additionalProperties": False,
}
_LINES = {
    "type": "object",
    "properties": {"lines": {"type": "array", "items": {"type": "string"}}},
    "required": ["lines"],
    "additionalProperties": False,
}


def detector(model: Any, *, name: str = "detect", side: int = 768, max_tokens: int = 512) -> Ask:
    """Gives `objects`, nouns, and `boxes`, each four shares: left, top, right, bottom."""
    return Ask(
        name,
        model,
        "detect",
        schema=_DETECTIONS,
        picture="image",
        side=side,
        accept=_boxes_fit,
        max_tokens=max_tokens,
    )


def reader(model: Any, *, name: str = "read", side: int = 1024, max_tokens: int = 512) -> Ask:
    """Gives `lines`, the text in the picture."""
    return Ask(
        name,
        model,
        "read_text",
        schema=_LINES,
        picture="image",
        side=side,
        max_tokens=max_tokens,
    )


def answerer(model: Any, *, output: str = "answer", name: str = "answer", side: int = 768) -> Ask:
    """Gives `output`, a short answer to the field `question`; "unknown" where it cannot be seen."""
    return Ask(
        name, model, "answer_question", output=output, picture="image", side=side, max_tokens=64
    )


def describer(
    model: Any, *, output: str = "caption", name: str = "describe", side: int = 768
) -> Ask:
    """Gives `output`, a caption by a model that is not one of ours."""
    return Ask(name, model, "describe", output=output, picture="image", side=side, max_tokens=128)


def _boxes_fit(fields: Fields, outputs: Mapping[str, Any]) -> str:
    """Why the answer cannot be used, or "" if it can."""
    objects, boxes = outputs["objects"], outputs["boxes"]
    if len(boxes) != 4 * len(objects):
        return f"it has {len(objects)} objects and {len(boxes)} numbers, where each needs four"
    for i, noun in enumerate(objects):
        left, top, right, bottom = boxes[4 * i : 4 * i + 4]
        if left >= right or top >= bottom:
            return f"the box of {noun!r} has no area: give left, top, right, bottom"
    return ""
