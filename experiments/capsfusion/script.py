"""Fusing and rewriting by rule: the teacher of the small world. A script, and never a model.

It takes the synthetic caption's sentence and puts in what only the alt-text has: proper nouns and
numbers. It is exact where names begin with a capital and generic nouns are those below; what an
LLM does besides (to choose, to doubt, to find other words) it does not.
"""

from __future__ import annotations

import re

GENERIC = ("shape", "object", "figure")
_DETERMINERS = ("a", "an", "the", "two", "three", "some")
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


def entities(text: str) -> list[str]:
    """The words of a text that begin with a capital or are numbers, in order, each once."""
    words = [word for word in _WORD.findall(text) if word[0].isupper() or word[0].isdigit()]
    return list(dict.fromkeys(words))


def entity_retention(alt_text: str, fused: str) -> float | None:
    """The share of the alt-text's entities that the fused text has; None where it has none."""
    own = entities(alt_text)
    if not own:
        return None
    there = {word.lower() for word in _WORD.findall(fused)}
    return sum(word.lower() in there for word in own) / len(own)


def fuse(alt_text: str, caption: str) -> str:
    """The caption with the alt-text's entities in place of its first generic noun, or else behind
    its first determiner, or else before it. An empty text leaves the other one as it is.
    """
    if not caption.strip():
        return alt_text
    there = {word.lower() for word in _WORD.findall(caption)}
    new = " ".join(word for word in entities(alt_text) if word.lower() not in there)
    if not new:
        return caption
    words = caption.split(" ")
    for place, word in enumerate(words):
        if word.lower() in GENERIC:
            return " ".join([*words[:place], new, *words[place + 1 :]])
    for place, word in enumerate(words):
        if word.lower() in _DETERMINERS:
            return " ".join([*words[: place + 1], new, *words[place + 1 :]])
    return f"{new} {caption}"


def rewrite(alt_text: str) -> str:
    """The alt-text alone as a sentence: what LaCLIP's rewriting has to work with."""
    return f"a picture of {' '.join(entities(alt_text)) or alt_text}"
