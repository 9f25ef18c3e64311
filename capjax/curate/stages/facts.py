"""What a fused text kept of its sources, lost and invented, where facts can be told exactly.

A fact is a (kind, value) that a word stands for, such as ("colour", "red"); which words stand for
facts is a closed lexicon, as generated scenes have one. Of a fused text and its sources

    kept        facts of a source that the fused text has
    lost        facts of a source that it lacks
    invented    facts that it has and no source has

and against the truth of the picture facts are true or false. Words outside the lexicon are not
judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from capjax.curate.stage import Stage
from capjax.errors import UserError

Fact = tuple[str, str]


class Lexicon:
    """The words that stand for facts: {kind: values}; a value is one word, whatever its case."""

    def __init__(self, kinds: Mapping[str, Iterable[str]]):
        self.kinds = {kind: tuple(values) for kind, values in kinds.items()}
        self._of: dict[str, Fact] = {}
        for kind, values in self.kinds.items():
            for value in values:
                if value.lower() in self._of:
                    raise UserError(f"the word {value!r} stands for two facts of the lexicon")
                self._of[value.lower()] = (kind, value)

    def __call__(self, text: str) -> frozenset[Fact]:
        """The facts of a text."""
        words = re.findall(r"[^\W_]+", text.lower())
        return frozenset(self._of[word] for word in words if word in self._of)


class Fusion(NamedTuple):
    """The facts of a fused text by where they come from."""

    kept: frozenset[Fact]
    lost: frozenset[Fact]
    invented: frozenset[Fact]


def compare(fused: frozenset[Fact], sources: Iterable[frozenset[Fact]]) -> Fusion:
    """Of facts: what was kept, lost and invented."""
    told = frozenset().union(*sources)
    return Fusion(fused & told, told - fused, fused - told)


def count_facts(
    fused: str,
    sources: Iterable[str],
    facts: Callable[[str], frozenset[Fact]],
    name: str = "",
) -> Stage:
    """Gives `{fused}_kept`, `{fused}_lost` and `{fused}_invented`, numbers of facts.

    fused, sources: fields of text; a source of None has no facts.
    """
    sources = tuple(sources)
    if not sources or fused in sources:
        raise UserError(f"the facts of {fused!r} need sources, and other ones than itself")
    return Stage(
        name or f"facts of {fused}",
        _Count(fused, sources, facts),
        dict.fromkeys((fused, *sources), str),
        {f"{fused}_{part}": int for part in Fusion._fields},
    )


class _Count:
    def __init__(self, fused: str, sources: tuple[str, ...], facts: Callable[[str], frozenset]):
        self.fused, self.sources, self.facts = fused, sources, facts

    def __call__(self, **fields: Any) -> Mapping[str, int]:
        told = [self.facts(fields[name] or "") for name in self.sources]
        found = compare(self.facts(fields[self.fused] or ""), told)
        return {f"{self.fused}_{part}": len(own) for part, own in found._asdict().items()}
