"""Answers that are no answer: a model declines, in words.

Servers tell some refusals apart (`refusal`, or the finish reason content_filter); most come as
plain text. The patterns are those of stock phrases, at the beginning of an answer or as a mention
of being a machine anywhere in it: no caption of a picture speaks so.
"""

from __future__ import annotations

import re

_VERBS = (
    "help|assist|provide|describe|see|view|comply|fulfil|fulfill|create|generate|write|answer|"
    "access|process|complete|rewrite|combine|merge|continue|identify|do (?:that|this)"
)
_BEGINS = re.compile(
    r"^\W*(?:(?:i['\u2019]?m|i am) (?:very |so )?sorry\b|sorry, (?:but )?i\b|my apologies\b|"
    r"i apologi[sz]e\b|unfortunately, i\b|i (?:am unable|am not able|must decline|decline) to\b|"
    rf"i (?:can(?:no|['\u2019])t|can not|won['\u2019]t) (?:\w+ly )?(?:{_VERBS})\b)",
    re.IGNORECASE,
)
_MACHINE = re.compile(
    r"\b(?:as an? (?:ai|artificial intelligence|large language model|language model)\b|"
    r"(?:i['\u2019]?m|i am) (?:just )?an? (?:ai|language model)\b)",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Whether the answer declines instead of answering."""
    return bool(_BEGINS.search(text) or _MACHINE.search(text))
