"""Fusing by rule, in place of a language model: the facts of both captions in one sentence.

A script, and never a model: it reads the words of the small world's lexicon (`worlds.FACTS`), takes
all that either caption says, and where they contradict each other writes down both, as an LLM does
that is told to keep the information of both and to add none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from capjax.data.scenes.vocabulary import article
from experiments.rank_fuse.worlds import FACTS

NAME = "script union of facts (no model)"


def fuse(captions: Sequence[str]) -> str:
    """One sentence with the facts of all captions, those of the first ones first."""
    said: dict[str, list[str]] = {kind: [] for kind in FACTS.kinds}
    for caption in captions:
        own: dict[str, list[str]] = {}
        for word in re.findall(r"[a-z]+", caption.lower()):
            for kind, value in FACTS(word):
                own.setdefault(kind, []).append(value)
        for kind, values in own.items():
            together = " ".join(values)  # a corner is one place
            if not any(set(values) <= set(other.split()) for other in said[kind]):
                said[kind].append(together)
    colours, shapes, places, backgrounds = (" and ".join(own) for own in said.values())
    noun = " ".join(part for part in (colours, shapes or "object") if part)
    parts = [f"{article(noun)} {noun}"]
    if places:
        parts.append(f"at the {places}")
    if backgrounds:
        parts.append(f"on a {backgrounds} background")
    return " ".join(parts)
