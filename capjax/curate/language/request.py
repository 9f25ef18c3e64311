"""What is asked of a language model, what comes back, and how it can fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

# {"role": "system" | "user" | "assistant", "content": text, or a list of `pictures` and texts}
Message = dict[str, Any]

ENDED, CUT, REFUSED = "ended", "cut at the longest length", "refused"


@dataclasses.dataclass(frozen=True)
class Request:
    """One call. seed: None leaves it to the model; schema: of the JSON that is wanted back."""

    messages: tuple[Message, ...]
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    schema: Mapping[str, Any] | None = None


def text_of(message: Message) -> str:
    """What a message says in words; a picture in it says nothing."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


class Answer(NamedTuple):
    """A complete answer of a model; `finish` is one of ENDED, CUT, REFUSED."""

    text: str
    finish: str
    model: str  # as the model calls itself: it may be newer than what was asked for
    prompt_tokens: int = 0
    completion_tokens: int = 0


class CallFailed(Exception):
    """No answer, however often it was asked: the reasons, by how often."""
