"""Several sources as one, drawn with given probabilities; by batch or by example.

With `single_source` each batch comes from one source, so that a contrastive loss cannot tell pairs
apart by where they come from (Cui et al., ZeroVL, arXiv 2112.09331; the default of prefix
conditioning, arXiv 2206.01125). It is the global batch that has one source: which one is a pure
function of (seed, step), equal on every process. Without it every example draws its own source.

    config.data.train = {
        "name": "capjax.data.mixture",
        "sources": {"captions": {"name": ..., ...}, "labels": {"name": ..., ...}},
        "weights": {"captions": 0.5, "labels": 0.5},
    }

With a `curriculum` the weights change over the steps of training, linearly from one entry to the
next: ((0, {"captions": 1, "labels": 0}), (10_000, {"captions": 0.5, "labels": 0.5})).

Records gain `source`, the place of their source's name in sorted order, and a `class_id` of -1 if
they have none; their key begins with that name. Within a source every epoch is a new permutation; a
source that is used up begins anew.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capjax.config import instantiate
from capjax.data.order import Shuffled
from capjax.errors import BadRecord, UserError

_CHUNK = 1 << 14  # draws made at a time


class Source:
    """The records of all `sources`, those of the first name first; names in sorted order.

    sources: {name: source section}. weights: {name: how often}, in any unit; by default each source
    is as likely as any other. single_source, curriculum (in place of weights): see above.

    Raises:
      UserError: no sources, weights that are negative, all zero, not finite or of other names, or a
        source that is drawn and has no records.
    """

    def __init__(
        self,
        sources: Mapping[str, Mapping[str, Any]],
        weights: Mapping[str, float] | None = None,
        single_source: bool = True,
        curriculum: Sequence[tuple[int, Mapping[str, float]]] = (),
    ):
        if not sources:
            raise UserError("a mixture needs at least one source")
        self.names = tuple(sorted(sources))
        self.steps, self.probabilities = _schedule(self.names, weights, curriculum)
        self.single_source = single_source
        self.sources = [
            instantiate(sources[name], "Source", where=f"the source {name!r} of the mixture")
            for name in self.names
        ]
        for name, source, chances in zip(
            self.names, self.sources, self.probabilities.T, strict=True
        ):
            if chances.any() and not len(source):
                raise UserError(f"the source {name!r} of the mixture has no records")
        # The first record of each source, and the end.
        self.first = np.cumsum([0, *map(len, self.sources)])

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, own = self._own(index)
        name = self.names[number]
        try:
            record = self.sources[number][own]
        except BadRecord as error:
            raise BadRecord(f"{name}/{error.key}", error.reason) from error
        # Without a class of its own a pair has none: -1, so that batches of every source say so.
        return {"class_id": -1, **record, "key": f"{name}/{record['key']}", "source": number}

    def captions(self, index: int) -> list[str]:
        """As the record's own source."""
        number, own = self._own(index)
        return self.sources[number].captions(own)

    def order(self, seed: int, batch_size: int) -> MixedOrder:
        """The order of a training stream; see `capjax.data.order`."""
        block = batch_size if self.single_source else 1
        draws = self.steps * (batch_size // block)
        orders = [_order_of(source, seed, k) for k, source in enumerate(self.sources)]
        return MixedOrder(self.first, orders, draws, self.probabilities, seed, block)

    def _own(self, index: int) -> tuple[int, int]:
        """(number of the source, the record's index in it)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = _source_of(self.first, index)
        return number, int(index - self.first[number])


class MixedOrder:
    """Draws a source for each block of positions and goes on in that source's own order.

    first: int [K + 1], the first record of each of the K sources, and the end. orders: of each
    source, None for one without records. probabilities [E,K]
    at the draws [E], linear in between and constant outside. block: positions that share a draw: a
    batch, or 1.
    """

    def __init__(
        self,
        first: np.ndarray,
        orders: Sequence[Any],
        draws: np.ndarray,
        probabilities: np.ndarray,
        seed: int,
        block: int,
    ):
        self.first, self.block = first, block
        self._draws, self._limits = draws, np.cumsum(probabilities, axis=1)[:, :-1]
        self._orders = orders
        self._seed = seed
        self._lock = threading.Lock()
        # Of each chunk of draws: which source, and how often it was drawn before that draw.
        self._chunks: list[tuple[np.ndarray, np.ndarray]] = []
        self._drawn = np.zeros(len(self._orders), np.int64)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: int) -> int:
        draw, row = divmod(int(position), self.block)
        number, before = self.draw(draw)
        return int(self.first[number]) + self._orders[number][before * self.block + row]

    def epoch(self, position: int) -> int:
        """How often all records of the position's own source were seen before it."""
        draw, row = divmod(int(position), self.block)
        number, before = self.draw(draw)
        return self._orders[number].epoch(before * self.block + row)

    def another(self, record: int, rng: np.random.Generator) -> int:
        """A record of the same source, in the place of one that cannot be used."""
        number = _source_of(self.first, record)
        return int(rng.integers(self.first[number], self.first[number + 1]))

    def draw(self, number: int) -> tuple[int, int]:
        """(the source of draw `number`, how often it was drawn before)."""
        chunk, place = divmod(number, _CHUNK)
        if chunk >= len(self._chunks):
            with self._lock:
                while chunk >= len(self._chunks):
                    self._chunks.append(self._next_chunk())
        sources, before = self._chunks[chunk]
        return int(sources[place]), int(before[place])

    def _next_chunk(self) -> tuple[np.ndarray, np.ndarray]:
        chance = np.random.default_rng((self._seed, len(self._chunks))).random(_CHUNK)
        at = len(self._chunks) * _CHUNK + np.arange(_CHUNK)
        # How many of the limits between sources the chance has reached.
        sources = np.zeros(_CHUNK, np.int16)
        for limits in self._limits.T:
            sources += chance >= np.interp(at, self._draws, limits)
        before = np.empty(_CHUNK, np.int64)
        for k in range(len(self._orders)):
            mine = np.flatnonzero(sources == k)
            before[mine] = self._drawn[k] + np.arange(len(mine))
            self._drawn[k] += len(mine)
        return sources, before


def _order_of(source: Any, seed: int, number: int) -> Any:
    """The order of a source in itself: its own, if it has one, or shuffled."""
    own_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    if not len(source):
        return None
    return (
        source.order(own_seed, 1) if hasattr(source, "order") else Shuffled(len(source), own_seed)
    )


def _source_of(first: np.ndarray, record: int) -> int:
    """The number of the source that the record belongs to."""
    return int(np.searchsorted(first, record, side="right")) - 1


def _schedule(
    names: tuple[str, ...],
    weights: Mapping[str, float] | None,
    curriculum: Sequence[tuple[int, Mapping[str, float]]],
) -> tuple[np.ndarray, np.ndarray]:
    """(steps int [E], probabilities [E,K] at these steps)."""
    if not curriculum:
        return np.zeros(1, np.int64), _probabilities(names, weights)[None]
    if weights is not None:
        raise UserError("the mixture has weights and a curriculum: give one of them")
    steps = np.array([step for step, _ in curriculum], np.int64)
    if np.any(steps < 0) or np.any(np.diff(steps) <= 0):
        raise UserError(f"the curriculum's steps {steps.tolist()} must rise, from 0 or more")
    return steps, np.stack([_probabilities(names, each) for _, each in curriculum])


def _probabilities(names: tuple[str, ...], weights: Mapping[str, float] | None) -> np.ndarray:
    weights = dict.fromkeys(names, 1.0) if weights is None else dict(weights)
    if set(weights) != set(names):
        raise UserError(
            f"the weights of the mixture name {', '.join(sorted(weights)) or 'nothing'} and its"
            f" sources {', '.join(names)}: give one weight each"
        )
    values = np.array([weights[name] for name in names], np.float64)
    if not np.all(np.isfinite(values)) or np.any(values < 0) or not values.any():
        raise UserError(
            f"the weights of the mixture are {values.tolist()}: they must not be negative, and one"
            " must be above zero"
        )
    return values / values.sum()
