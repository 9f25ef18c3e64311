"""Which caption of a record is trained on.

    random    each equally likely, drawn by the example's own generator
    weighted  drawn with `weights`: numbers by the caption's place, or the name of a field of the
              record that holds a number for each of its captions
    epoch     caption e modulo n in epoch e: each of n captions once in n epochs, without chance
    first     the first one
    longest   the one with the most characters; of equals the first

All captions, each as an example of its own, is a matter of the source: `each_caption`.

n: captions of a record. A rule is a pure function of (record, generator, epoch).
Raises `UserError` for an unknown rule and for weights that make no sense, `BadRecord` for a record
without captions or whose weights do not fit them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capjax.errors import BadRecord, UserError

RULES = ("random", "weighted", "epoch", "first", "longest")


@dataclasses.dataclass(frozen=True)
class CaptionChoice:
    """One rule, checked: `choice.index(record, rng, epoch)` is the number of the caption.

    weights: of "weighted" alone. Numbers may be more than a record has captions (the first n
    count), but not fewer.
    """

    rule: str = "random"
    weights: Sequence[float] | str = ()

    def __post_init__(self):
        if self.rule not in RULES:
            raise UserError(
                f"unknown rule of captions {self.rule!r}; choose one of {', '.join(RULES)}, or the "
                "source capjax.data.each_caption for all of them"
            )
        if bool(len(self.weights)) != (self.rule == "weighted"):
            raise UserError(
                f"the rule of captions {self.rule!r} "
                + ("takes no weights" if len(self.weights) else "needs weights")
            )
        if not isinstance(self.weights, str):
            object.__setattr__(self, "weights", tuple(map(float, self.weights)))
            if self.weights and not _usable(self.weights):
                raise UserError(
                    f"the weights of captions are {list(self.weights)}: they must not be negative, "
                    "and one must be above zero"
                )

    def index(self, record: Mapping[str, Any], rng: np.random.Generator, epoch: int = 0) -> int:
        """The number of the caption of `record` to use, from 0.

        "random" draws exactly once and "weighted" once; the other rules leave `rng` as it is.
        """
        captions = record["captions"]
        count = len(captions)
        if not count:
            raise BadRecord(record["key"], "it has no caption")
        if self.rule == "random":
            return int(rng.integers(count))
        if self.rule == "weighted":
            return int(rng.choice(count, p=self._shares(record, count)))
        if self.rule == "epoch":
            return epoch % count
        if self.rule == "first":
            return 0
        return max(range(count), key=lambda i: len(captions[i]))  # max keeps the first of equals

    def _shares(self, record: Mapping[str, Any], count: int) -> np.ndarray:
        """float64 [n], the probability of each caption."""
        key = record["key"]
        if isinstance(self.weights, str):
            if self.weights not in record:
                raise BadRecord(key, f"it lacks the field {self.weights!r} of caption weights")
            weights = record[self.weights]
            if not isinstance(weights, list | tuple | np.ndarray) or len(weights) != count:
                raise BadRecord(
                    key, f"its field {self.weights!r} is not a list of {count} caption weights"
                )
        else:
            weights = self.weights[:count]
            if len(weights) < count:
                raise BadRecord(
                    key, f"it has {count} captions, but there are {len(weights)} weights"
                )
        if not _usable(weights):
            raise BadRecord(key, f"none of its {count} captions has a usable weight")
        shares = np.asarray(weights, np.float64)
        return shares / shares.sum()


def _usable(weights: Sequence[float]) -> bool:
    try:
        values = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        return False
    return bool(np.all(np.isfinite(values)) and np.all(values >= 0) and values.sum() > 0)
