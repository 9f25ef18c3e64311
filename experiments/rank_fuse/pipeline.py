"""The stages of ranking and fusing: candidates together, the best two, fused, and checked.

    captioner --+
    captioner --+--> collect --> MatchScore --> rank(most=2) --> pair --> fuse
    captioner --+

The score is BLIP's probability of a match (`itm`) or, by any dual encoder, the cosine (`itc`).

Raises `UserError` for fewer than two captioners, `BadRecord` for a picture without any caption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capjax.curate.language.ask import Ask
from capjax.curate.language.templates import load
from capjax.curate.stage import Fields, Stage
from capjax.errors import BadRecord, UserError
from experiments.rank_fuse.script import NAME
from experiments.rank_fuse.script import fuse as by_script


def collect(captions: Sequence[str]) -> Stage:
    """`candidates` of the named fields, in their order, without empty ones, and how many `empty`
    ones there were."""
    if len(captions) < 2 or len(set(captions)) < len(captions):
        raise UserError(f"there is nothing to rank among {len(captions)} captioners: name two")
    return Stage(
        "collect",
        _Collect(tuple(captions)),
        {"key": str} | dict.fromkeys(captions, str),
        {"candidates": list[str], "empty": int},
    )


class _Collect:
    def __init__(self, captions: tuple[str, ...]):
        self.captions = captions

    def __call__(self, *, key: str, **fields: Any) -> Mapping[str, Any]:
        told = [" ".join((fields[name] or "").split()) for name in self.captions]
        there = [text for text in told if text]
        if not there:
            raise BadRecord(key, "no captioner wrote anything")
        return {"candidates": there, "empty": len(told) - len(there)}


def pair(ranked: str = "ranked") -> Stage:
    """`first` and `second` of the ranked captions, and whether there are two to fuse; the second
    of a single one is empty."""
    return Stage(
        "pair",
        _Pair(ranked),
        {ranked: list[str]},
        {"first": str, "second": str, "two": bool},
    )


class _Pair:
    def __init__(self, ranked: str):
        self.ranked = ranked

    def __call__(self, **fields: Any) -> Mapping[str, Any]:
        first, *rest = fields[self.ranked]
        return {"first": first, "second": rest[0] if rest else "", "two": bool(rest)}


def fuse(model: Any, *, max_tokens: int = 160) -> Ask:
    """Gives `fused`, of the better caption and the other one, in this order. A single caption stays
    as it is, and no model is asked; an answer that cannot be used gives the better caption, and
    `fuse_status` says so."""
    return Ask(
        "fuse",
        model,
        load("fuse_pair"),
        output="fused",
        fallback="first",
        accept=unusable,
        skip=_single,
        max_tokens=max_tokens,
    )


def unusable(fields: Fields, outputs: Mapping[str, Any]) -> str:
    """Why the answer cannot be used, or "" if it can: cut short, or the prompt said again."""
    text = outputs["fused"]
    if len(text) < min(len(fields["first"]), len(fields["second"])):
        return "it is shorter than both captions"
    if "<<" in text or text.lower().startswith(("the first caption", "the second caption")):
        return "it says the prompt again"
    return ""


def _single(fields: Fields) -> Mapping[str, Any] | None:
    return None if fields["second"] else {"fused": fields["first"]}


def scripted() -> Stage:
    """`fuse` by a script, for the small world, under the same outputs: it is no model."""
    return Stage(
        "fuse",
        _scripted,
        {"first": str, "second": str},
        {"fused": str, "fuse_status": str, "fuse_model": str},
    )


def _scripted(first: str, second: str) -> Mapping[str, str]:
    if not second:
        return {"fused": first, "fuse_status": "ok", "fuse_model": ""}
    return {"fused": by_script((first, second)), "fuse_status": "ok", "fuse_model": NAME}
