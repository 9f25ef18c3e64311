"""Several short texts in one row of L tokens, so that little of a batch is padding.

First fit in stream order: a text goes into the first row that has room for it. To resume exactly,
the stream is cut into blocks of K texts that are packed apart from each other: block k holds the
texts [k K, (k + 1) K) and nothing else, so its rows are a pure function of k, and the state of a
stream of rows is (block, row). The price is some room left at the end of each block. A row never
holds a part of a text.

    tokens     what the rows hold, `pad` where there is no text
    segments   1, 2, ... for the texts of a row, 0 for padding: attention stays within a segment
    positions  each text counts from 0 anew, as if it stood alone; 0 for padding

L: tokens of a row. R: rows. N: texts. K: texts of a block.
Raises `UserError` for a text longer than a row and for an empty one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from capjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Packed:
    """R rows, and where each text went."""

    tokens: np.ndarray  # int32 [R,L]
    segments: np.ndarray  # int32 [R,L]
    positions: np.ndarray  # int32 [R,L]
    row_of: np.ndarray  # int32 [N], the row of each text
    start_of: np.ndarray  # int32 [N], where it begins in the row

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def filled(self) -> float:
        """The share of the tokens that are no padding."""
        return float(np.mean(self.segments > 0)) if len(self) else 0.0


def pack(texts: Sequence[Sequence[int]], length: int, pad: int = 0) -> Packed:
    """N texts -> R rows of L = `length` tokens; within a row the texts keep their order."""
    sizes = np.array([len(text) for text in texts], np.int32)
    _check(sizes, length)
    row_of, start_of, rows = first_fit(sizes, length)
    packed = Packed(
        tokens=np.full((rows, length), pad, np.int32),
        segments=np.zeros((rows, length), np.int32),
        positions=np.zeros((rows, length), np.int32),
        row_of=row_of,
        start_of=start_of,
    )
    held = np.zeros(rows, np.int32)  # texts of each row so far
    for text, row, start, size in zip(texts, row_of, start_of, sizes, strict=True):
        held[row] += 1
        place = slice(start, start + size)
        packed.tokens[row, place] = text
        packed.segments[row, place] = held[row]
        packed.positions[row, place] = np.arange(size)
    return packed


def first_fit(sizes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, int]:
    """int [N] -> (row int32 [N], start int32 [N], R) of each text, none longer than `length`.

    Takes N * R steps in NumPy: blocks of thousands of texts, not of millions.
    """
    used = np.zeros(len(sizes), np.int32)  # tokens in each row; every text could want its own
    row_of, start_of = np.zeros((2, len(sizes)), np.int32)
    rows = 0
    for i, size in enumerate(sizes):
        # The row behind the last one is empty and always fits: argmax finds the first True.
        row = int(np.argmax(used[: rows + 1] + size <= length))
        rows = max(rows, row + 1)
        row_of[i], start_of[i] = row, used[row]
        used[row] += size
    return row_of, start_of, rows


def unpack(tokens: np.ndarray, segments: np.ndarray) -> list[np.ndarray]:
    """int32 [R,L] twice -> the texts, row by row: the inverse of `pack` but for their order."""
    texts = []
    for row, marks in zip(tokens, segments, strict=True):
        texts += [row[marks == number] for number in range(1, int(marks.max(initial=0)) + 1)]
    return texts


def same_text(segments: np.ndarray) -> np.ndarray:
    """int [R,L] -> bool [R,L,L]: whether position q may see position k, before any causal mask.

    Padding sees nothing and is seen by nothing.
    """
    return (segments[:, :, None] == segments[:, None, :]) & (segments > 0)[:, :, None]


class PackedRows:
    """The endless stream of rows over `text_at(position)`, a pure function: position -> ids.

    Iterates over (tokens, segments, positions), each int32 [L]. `state()` after a row is the place
    right behind it, as plain JSON; `restore(state)` goes there. Of P processes, number p takes the
    blocks p, p + P, p + 2 P, ...
    """

    def __init__(
        self,
        text_at: Callable[[int], Sequence[int]],
        length: int,
        block: int = 1024,
        pad: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if block < 1:
            raise UserError(f"a block of {block} texts packs nothing: use 1 or more")
        self._text_at, self._length, self._block, self._pad = text_at, length, block, pad
        self._first, self._step = process_index, process_count
        self.restore({"blocks": 0, "row": 0})

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._packed is None:
            self._packed = self.rows_of(self._first + self._blocks * self._step)
        packed, row = self._packed, self._row
        self._row += 1
        if self._row == len(packed):
            self._blocks, self._row, self._packed = self._blocks + 1, 0, None
        return packed.tokens[row], packed.segments[row], packed.positions[row]

    def rows_of(self, block: int) -> Packed:
        """The rows of one block: a pure function of its number."""
        begin = block * self._block
        texts = [self._text_at(begin + i) for i in range(self._block)]
        return pack(texts, self._length, self._pad)

    def state(self) -> dict[str, int]:
        """How many blocks of this process are used up, and how many rows of the next one."""
        return {"blocks": self._blocks, "row": self._row}

    def restore(self, state: dict[str, int]) -> None:
        """Goes to where `state()` was taken."""
        self._blocks, self._row = int(state["blocks"]), int(state["row"])
        self._packed: Packed | None = None


def _check(sizes: np.ndarray, length: int) -> None:
    if len(sizes) and sizes.min() == 0:
        raise UserError(f"text {int(np.argmin(sizes))} to pack has no tokens: leave it out")
    if len(sizes) and sizes.max() > length:
        raise UserError(
            f"text {int(np.argmax(sizes))} has {sizes.max()} tokens and does not fit into a row of "
            f"{length}: cut it or make the rows longer"
        )
