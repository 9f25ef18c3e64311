"""ALIGN's filter: which pairs of picture and alt-text of a raw crawl are trained on.

Nine rules, in this order; a pair is kept if it breaks none:

    flagged          the picture is marked unsafe
    small            its shorter side is not above 200 px
    elongated        its longer side is 3 times the shorter one, or more
    many_texts       it carries more than 1,000 alt-texts
    evaluation       it is listed as a duplicate of a picture that models are evaluated on
    shared_text      the alt-text stands beside more than 10 pictures
    rare_token       a unigram or bigram of it is not among the 100 million most frequent ones
    short_text       fewer than 3 unigrams
    long_text        more than 20

Two passes: `Counts` over the whole raw corpus, shard by shard and then merged, and a `Filter` of
these counts over each row. The order of rows and the cut into shards change no answer.

What the paper leaves open is decided so:
- Unigrams are lower-cased runs of letters, digits and underscores, with apostrophes inside, so that
  "dog." is "dog"; a bigram is two neighbours, whatever stands between. Made for English: a clause
  in a script without spaces is one unigram, and short_text drops it.
- Alt-texts are equal if they differ in case and spaces alone.
- Distinct things are counted: a pair that the crawl met twice is one picture and one alt-text.
- All counts are of the raw corpus, flagged and small pictures included. Unigrams and bigrams share
  one list, in which every occurrence counts; all that are as frequent as the last of the list are
  in it, so that no tie is broken by chance.

Memory: plain dictionaries and sets in one process; a row costs its new pictures, alt-texts and
bigrams. 165,000 captions of COCO and Flickr30k took 0.7 KB a row (1.0 KB for the first 10,000), so
ten million rows want some 7 GB, and ALIGN's 1.8 billion need counts kept elsewhere. A picture with
more alt-texts than are allowed stops growing, and so does an alt-text.

Source: Jia et al. 2021 (ALIGN, arXiv 2102.05918, section 3).
Raises `BadRecord` for a row that lacks a field or has no size, `UserError` for limits that make no
sense, counts of other limits, and a row that was not counted.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from capjax.errors import BadRecord, UserError

RULES = (
    "flagged",
    "small",
    "elongated",
    "many_texts",
    "evaluation",
    "shared_text",
    "rare_token",
    "short_text",
    "long_text",
)

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of the paper; UserError for one that is out of range."""

    shorter_side: int = 200  # px that the shorter side must exceed
    aspect_ratio: float = 3.0  # longer / shorter must stay below
    texts_per_image: int = 1_000
    images_per_text: int = 10
    frequent_tokens: int = 100_000_000  # unigrams and bigrams together
    fewest_unigrams: int = 3
    most_unigrams: int = 20

    def __post_init__(self):
        for name, least in (
            ("shorter_side", 0),
            ("aspect_ratio", 1),
            ("texts_per_image", 1),
            ("images_per_text", 1),
            ("frequent_tokens", 1),
            ("fewest_unigrams", 0),
            ("most_unigrams", self.fewest_unigrams),
        ):
            if not getattr(self, name) >= least:
                raise UserError(f"{name}={getattr(self, name)} must be at least {least}")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One row of the raw corpus."""

    key: str
    image: str  # which picture: equal for rows that show the same one
    width: int  # px
    height: int
    caption: str
    flagged: bool  # unsafe


_FIELDS = {field.name for field in dataclasses.fields(Candidate)}


def candidate(row: Mapping[str, Any]) -> Candidate:
    """The candidate of a row, whose further fields are left alone; BadRecord if it is none."""
    key = str(row.get("key", "without a key"))
    missing = sorted(_FIELDS - row.keys())
    if missing:
        raise BadRecord(key, f"lacks the field {', '.join(missing)}")
    for field in ("key", "image", "caption"):
        if not isinstance(row[field], str):
            raise BadRecord(key, f"{field} must be text, not {type(row[field]).__name__}")
    for field in ("width", "height"):
        size = row[field]
        if isinstance(size, bool) or not hasattr(size, "__index__") or size <= 0:
            raise BadRecord(key, f"{field} must be a positive number of pixels, not {size!r}")
    if row["flagged"] not in (True, False):
        raise BadRecord(key, f"flagged must be true or false, not {row['flagged']!r}")
    return Candidate(**{field: row[field] for field in _FIELDS})


def unigrams(caption: str) -> list[str]:
    """The lower-cased words of a caption, in order."""
    return _WORD.findall(caption.lower())


def tokens(words: list[str]) -> list[str]:
    """The words and, with a space between, each two neighbours."""
    return words + [f"{first} {second}" for first, second in itertools.pairwise(words)]


class Counts:
    """What the rules must know of the whole corpus; of one shard until merged."""

    def __init__(self, limits: Limits = Limits()):
        self.limits = limits
        self.rows = 0
        self.tokens: Counter[str] = Counter()
        # Sets, since the same pair may be met again, here or in another shard.
        self._texts: dict[str, set[str]] = {}  # of a picture
        self._images: dict[str, set[str]] = {}  # of an alt-text

    def add(self, row: Candidate) -> None:
        """Counts one row of the raw corpus."""
        self.rows += 1
        self.tokens.update(tokens(unigrams(row.caption)))
        text = _same_text(row.caption)
        _grow(self._texts, row.image, (text,), self.limits.texts_per_image)
        _grow(self._images, text, (row.image,), self.limits.images_per_text)

    def merge(self, other: Counts) -> None:
        """Adds the counts of another shard; UserError if they were made with other limits."""
        if other.limits != self.limits:
            raise UserError("counts made with different limits cannot be merged: count again")
        self.rows += other.rows
        self.tokens.update(other.tokens)
        for image, texts in other._texts.items():
            _grow(self._texts, image, texts, self.limits.texts_per_image)
        for text, images in other._images.items():
            _grow(self._images, text, images, self.limits.images_per_text)

    def texts_of(self, image: str) -> int:
        """How many alt-texts a picture carries; no more than one above the limit are counted."""
        return len(self._texts.get(image, ()))

    def images_of(self, caption: str) -> int:
        """How many pictures an alt-text stands beside; counted to one above the limit, too."""
        return len(self._images.get(_same_text(caption), ()))

    def frequency_cut(self) -> int:
        """How often a token must occur to be one of the most frequent; 1 if all of them are."""
        left = self.limits.frequent_tokens
        how_many = Counter(self.tokens.values())
        for frequency in sorted(how_many, reverse=True):
            left -= how_many[frequency]
            if left <= 0:
                return frequency
        return 1


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The rules that a row breaks, in the order of RULES."""

    key: str
    broken: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether it breaks none."""
        return not self.broken


class Filter:
    """Judges rows by complete counts, which must not change afterwards.

    `evaluation` holds the ids of pictures to leave out, or says of an id whether it is one; who
    looks for near duplicates lists them here.
    """

    def __init__(
        self, counts: Counts, evaluation: Container[str] | Callable[[str], bool] = frozenset()
    ):
        if isinstance(evaluation, str):
            raise UserError("evaluation must be a set of picture ids or a function, not one text")
        self._counts = counts
        self._is_evaluated = evaluation if callable(evaluation) else evaluation.__contains__
        self._cut = counts.frequency_cut()

    def __call__(self, row: Candidate) -> Verdict:
        """UserError for a picture or an alt-text that was never counted."""
        counts, limits = self._counts, self._counts.limits
        if not counts.texts_of(row.image) or not counts.images_of(row.caption):
            raise UserError(
                f"the row {row.key!r} is not in the counts: count the whole raw corpus, this row "
                "included, before filtering"
            )
        shorter, longer = sorted((row.width, row.height))
        words = unigrams(row.caption)
        broken = {
            "flagged": row.flagged,
            "small": shorter <= limits.shorter_side,
            "elongated": longer >= limits.aspect_ratio * shorter,
            "many_texts": counts.texts_of(row.image) > limits.texts_per_image,
            "evaluation": self._is_evaluated(row.image),
            "shared_text": counts.images_of(row.caption) > limits.images_per_text,
            "rare_token": any(counts.tokens[token] < self._cut for token in tokens(words)),
            "short_text": len(words) < limits.fewest_unigrams,
            "long_text": len(words) > limits.most_unigrams,
        }
        return Verdict(row.key, tuple(rule for rule in RULES if broken[rule]))


def summary(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """rows, kept, and how many rows break each rule: a row that breaks two is in both counts.

    Summaries of shards add up.
    """
    total = Counter(dict.fromkeys(("rows", "kept", *RULES), 0))
    for verdict in verdicts:
        total.update(("rows", *(verdict.broken or ("kept",))))
    return dict(total)


def _same_text(caption: str) -> str:
    return " ".join(caption.lower().split())


def _grow(sets: dict[str, set[str]], key: str, new: Iterable[str], limit: int) -> None:
    """Adds to a set until it is one above the limit: which ones are in it then matters no more."""
    held = sets.setdefault(key, set())
    for item in new:
        if len(held) > limit:
            break
        held.add(item)
