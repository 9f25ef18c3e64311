"""The prompt's budget of tokens: where it is exceeded, the alt-text alone gives way, from its end.

CapsFusion's settings are 256 tokens, and a caption and instructions that stay whole. At exactly the
budget nothing is cut. What counts tokens has `ids(text)` and `text(ids)`, as every tokenizer here.

Raises `UserError` for instructions that fill the budget alone; `BadRecord` for a caption that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from capjax.curate.language.request import text_of
from capjax.curate.language.templates import Template
from capjax.errors import BadRecord, UserError


class Tokens(Protocol):
    """Counts and cuts."""

    def ids(self, caption: str) -> list[Any]: ...

    def text(self, ids: list[Any]) -> str: ...


class Characters:
    """`each` characters as a token: an estimate, where the model's vocabulary is not at hand."""

    def __init__(self, each: int = 4):
        self.each = each

    def ids(self, caption: str) -> list[str]:
        """The text in pieces."""
        return [caption[i : i + self.each] for i in range(0, len(caption), self.each)]

    def text(self, ids: list[str]) -> str:
        """The pieces together."""
        return "".join(ids)


class FitPrompt:
    """A stage: `alt_text`, shortened until the prompt has at most `limit` tokens, and
    `alt_text_cut`, by how many.

    template: of alt_text and caption. What a server's chat template adds is not counted.
    """

    place, cached, version = "here", False, "1"

    def __init__(
        self, template: Template, tokens: Tokens, limit: int = 256, name: str = "fit the prompt"
    ):
        self.name, self._template, self._tokens, self._limit = name, template, tokens, limit
        self.inputs = {"key": str, "alt_text": str, "caption": str}
        self.outputs = {"alt_text": str, "alt_text_cut": int}
        self.params = {
            "limit": limit,
            "prompt_hash": template.digest,
            "tokens": getattr(tokens, "fingerprint", type(tokens).__name__),
        }
        alone = self._count("", "")
        if alone >= limit:
            raise UserError(
                f"stage {name!r}: the prompt {template.name!r} has {alone} tokens without any text "
                f"and its budget is {limit}: raise limit, or shorten the prompt"
            )

    def __call__(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        alt_text, caption = fields["alt_text"], fields["caption"]
        before = ids = self._tokens.ids(alt_text) if alt_text else []
        excess = self._count(alt_text, caption) - self._limit
        # More than once: two pieces that meet at a cut may count otherwise than apart.
        while excess > 0:
            if not ids:
                raise BadRecord(
                    fields["key"],
                    f"the prompt has {self._limit + excess} tokens without its alt-text, and its "
                    f"budget is {self._limit}",
                )
            ids = ids[: max(0, len(ids) - excess)]
            alt_text = self._tokens.text(ids)
            excess = self._count(alt_text, caption) - self._limit
        return {"alt_text": alt_text, "alt_text_cut": len(before) - len(ids)}

    def _count(self, alt_text: str, caption: str) -> int:
        messages = self._template.messages({"alt_text": alt_text, "caption": caption})
        return len(self._tokens.ids("\n\n".join(map(text_of, messages))))
