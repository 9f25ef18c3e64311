"""What generated worlds share beyond pictures: where a record's randomness begins, and its checks.

A record is drawn from (world, seed, split, index) alone. As in `scenes`, no two splits of one seed
share a state; two worlds of one seed do not either.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from capjax.data.scenes import arguments
from capjax.data.scenes.draws import Draws, mix64
from capjax.data.scenes.source import SPLITS
from capjax.errors import UserError

_WORD = 2**64 - 1


@contextmanager
def speaking_for(world: str) -> Iterator[None]:
    """The checks of `scenes.arguments` name their world first; here it is another one."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("scenes:", f"{world}:", 1)) from None


class Records:
    """The `size` records of one split: their keys, and a stream of draws for each purpose.

    Raises `UserError` for a seed, split or size that is none; `IndexError` beyond the end.
    """

    def __init__(self, world: str, seed: int, split: str, size: int):
        with speaking_for(world):
            self.seed = arguments.integer("seed", seed, 0, 2**63 - 1)
            self.size = arguments.integer("size", size, 1, 2**56)
            self.split = arguments.choices("split", [split], SPLITS)[0]
        self.world = world
        self._base = mix64(self.seed) + int.from_bytes(world.encode()[:7].ljust(8, b"\0"), "big")
        self._split_bits = SPLITS.index(self.split) << 60

    def checked(self, index: int) -> int:
        """The position, negative ones counted from the end."""
        position = operator.index(index)
        if position < 0:
            position += self.size
        if not 0 <= position < self.size:
            raise IndexError(f"{self.world}: index {index} of {self.size} records")
        return position

    def key(self, position: int) -> str:
        return f"{self.world}-{self.seed}-{self.split}-{position:08d}"

    def state(self, purpose: int, position: int) -> int:
        """64 bits. mix64 is a bijection: different (split, position) cannot meet in one state."""
        return mix64(mix64((self._base + purpose) & _WORD) ^ (self._split_bits | position))

    def draws(self, purpose: int, position: int) -> Draws:
        return Draws(self.state(purpose, position))


def combinations(
    vocabulary: Mapping[str, tuple[str, ...]], hold_out: Iterable[Mapping[str, str]], split: str
) -> tuple[tuple[str, ...], ...]:
    """Every combination of values, in the order of the vocabulary's names, that the split may draw.

    With `hold_out` (as `arguments.hold_out` gives it), test draws the held-out combinations and
    the other splits draw the rest.
    """
    names, wanted = tuple(vocabulary), tuple(hold_out)
    every = itertools.product(*vocabulary.values())
    if not wanted:
        return tuple(every)
    return tuple(
        values
        for values in every
        if is_held_out(dict(zip(names, values, strict=True)), wanted) == (split == "test")
    )


def is_held_out(values: Mapping[str, str], hold_out: Iterable[Mapping[str, str]]) -> bool:
    """Whether the values include one of the held-out combinations."""
    return any(all(values[n] == v for n, v in wanted.items()) for wanted in hold_out)
