"""Filters and small changes of texts: lengths, languages, mixing and joining of two captions.

Raises `UserError` for limits that make no sense.
"""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Mapping
from typing import Any

from capjax.curate.align_filter import unigrams
from capjax.curate.stage import Stage
from capjax.errors import BadRecord, UserError

# The most frequent function words: too few to tell close languages apart in three words, enough to
# tell which of these a sentence is in.
_WORDS = {
    "de": "der die das und ist ein eine mit auf im von den für nicht am an dem zu des bei",
    "en": "the a an of and in on with is at to by for from this that are it as his her",
    "es": "el la los las de y en un una con por para del que se su al es más sobre",
    "fr": "le la les de des et en un une dans avec sur pour du au est par aux ce sa",
    "it": "il lo la gli le di e in un una con per del della che su da al è nel",
    "nl": "de het een en van in op met voor is te bij aan zijn door uit naar dat om ook",
    "pt": "o a os as de e em um uma com por para do da no na que se ao é",
}
FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}


def length(field: str, least: int = 1, most: int | None = None, name: str = "") -> Stage:
    """Keeps records whose text has from `least` to `most` words."""
    if most is not None and most < least:
        raise UserError(f"the length filter of {field!r}: most={most} is below least={least}")
    return Stage(
        name or f"length of {field}",
        _Length(field),
        {field: str},
        params={"least": least, "most": most},
    )


class _Length:
    def __init__(self, field: str):
        self.field = field

    def __call__(self, *, least: int, most: int | None, **fields: Any) -> Mapping | None:
        words = len(unigrams(fields[self.field] or ""))
        return {} if words >= least and (most is None or words <= most) else None


def language(field: str, wanted: str = "en", least: float = 0.5, name: str = "") -> Stage:
    """Keeps texts that are likely in the wanted language, one of FUNCTION_WORDS.

    At least the share `least` of the letters must be Latin, and no other language may have more
    function words in the text; a text without any, such as a name or a few tags, is kept.
    """
    if wanted not in FUNCTION_WORDS:
        raise UserError(
            f"no function words of the language {wanted!r}; there are {', '.join(FUNCTION_WORDS)}"
        )
    return Stage(
        name or f"language of {field}",
        _Language(field),
        {field: str},
        params={"wanted": wanted, "least": least},
    )


class _Language:
    def __init__(self, field: str):
        self.field = field

    def __call__(self, *, wanted: str, least: float, **fields: Any) -> Mapping | None:
        text = fields[self.field] or ""
        letters = [c for c in text if c.isalpha()]
        latin = sum(unicodedata.name(c, "").startswith("LATIN") for c in letters)
        if not letters or latin < least * len(letters):
            return None
        words = unigrams(text)
        counts = {name: sum(w in own for w in words) for name, own in FUNCTION_WORDS.items()}
        return {} if counts[wanted] == max(counts.values()) else None


def mix(
    weights: Mapping[str, float], output: str = "caption", seed: int = 0, name: str = ""
) -> Stage:
    """One of several texts for each record, drawn by (seed, key): {field: share}.

    Gives `output` and `{output}_source`, the field that it is from. A field that is None or empty
    is not drawn, and its share goes to the others; a record without any is bad.
    """
    if not weights or min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > 1e-6:
        raise UserError(f"the shares of {', '.join(weights)} must be 0 or more and sum to 1")
    return Stage(
        name or f"mix to {output}",
        _Mix(output),
        {"key": str} | dict.fromkeys(weights, str),
        {output: str, f"{output}_source": str},
        params={"weights": dict(weights), "seed": seed},
    )


class _Mix:
    def __init__(self, output: str):
        self.output = output

    def __call__(self, *, key: str, weights: Mapping, seed: int, **fields: Any) -> Mapping:
        there = {name: share for name, share in weights.items() if fields[name] and share}
        if not there:
            raise BadRecord(key, f"none of {', '.join(weights)} has a text")
        place = draw(seed, self.output, key) * sum(there.values())
        reached = itertools.accumulate(there.values())
        chosen = next((n for n, end in zip(there, reached, strict=True) if place < end), None)
        chosen = chosen or list(there)[-1]  # sums of floats may end just below the whole
        return {self.output: fields[chosen], f"{self.output}_source": chosen}


def join(first: str, second: str, output: str, separator: str = "; ", name: str = "") -> Stage:
    """Both texts behind each other; where one is None or empty, the other alone."""
    return Stage(
        name or f"join to {output}",
        _Join(first, second, output),
        {first: str, second: str},
        {output: str},
        params={"separator": separator},
    )


class _Join:
    def __init__(self, first: str, second: str, output: str):
        self.first, self.second, self.output = first, second, output

    def __call__(self, *, separator: str, **fields: Any) -> Mapping:
        texts = [fields[name] for name in (self.first, self.second) if fields[name]]
        return {self.output: separator.join(texts)}


def draw(*parts: Any) -> float:
    """A number in [0, 1) that depends on the parts alone, the same on every machine."""
    data = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "big") / 2**56
