"""Prompts of the language model: captions, one a line, from a file or drawn anew for every
minibatch.

    Fixed(read_prompt("descriptive"))       the same lines for every picture
    FewShot(pool, shots=10)                 ten captions of the pool, others for every four pictures

(guiding, arXiv 2307.16686, section 3.2 and Table 3). The prompt files that come with this module
are of our own writing, of the shape of the paper's: `descriptive`, ten long captions in lower case
without punctuation, and `counting`, 26 lines "a photo of NUMBER OBJECTS".

A loop is compiled for one length of prompt. So that all minibatches share one, shorter prompts
begin with empty lines, which the language model knows from its training (`documents`).

Letters: B pictures, M minibatches, Q tokens of the longest prompt.
Raises `UserError` for a file that cannot be read, an empty list, and more shots than captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from capjax.data.token_rows import TokenRows
from capjax.errors import UserError
from experiments.guiding.lines import newline_of
from experiments.guiding.published import MINIBATCH

FILES = Path(__file__).parent / "prompt_files"


class Fixed:
    """The same lines for every picture."""

    def __init__(self, lines: Sequence[str]):
        if not lines:
            raise UserError("the prompt holds 0 captions: give at least 1")
        self._lines = list(lines)

    def lines(self, minibatch: int) -> list[str]:
        """The prompt of the pictures [4 minibatch, 4 minibatch + 4)."""
        return self._lines


class FewShot:
    """`shots` captions of the pool, drawn without replacement from (seed, shots, minibatch)."""

    def __init__(self, pool: Sequence[str], shots: int, seed: int = 0):
        if shots < 1:
            raise UserError(f"shots={shots} must be at least 1, of a pool of {len(pool)} captions")
        if shots > len(pool):
            raise UserError(
                f"shots={shots} is more than the {len(pool)} captions of the pool: give fewer "
                "shots or a larger pool"
            )
        self._pool, self._shots, self._seed = list(pool), shots, seed

    def lines(self, minibatch: int) -> list[str]:
        """The prompt of the pictures [4 minibatch, 4 minibatch + 4)."""
        rng = np.random.default_rng((self._seed, self._shots, minibatch))
        drawn = rng.choice(len(self._pool), self._shots, replace=False)
        return [self._pool[i] for i in drawn]


def prompt_rows(prompts: Fixed | FewShot, pictures: int, rows: TokenRows) -> np.ndarray:
    """int32 [B,Q]: BOS, empty lines to one length, then the captions, each ended by NEWLINE."""
    newline = newline_of(rows)
    count = -(-pictures // MINIBATCH)
    written = [
        [piece for line in prompts.lines(m) for piece in [*rows.ids(line), newline]]
        for m in range(count)
    ]
    longest = max(map(len, written))
    start = rows.special_tokens.start
    filled = np.array([[start] + [newline] * (longest - len(w)) + w for w in written], np.int32)
    return np.repeat(filled, MINIBATCH, axis=0)[:pictures]


def read_prompt(name: str) -> list[str]:
    """The lines of a file, or of `descriptive` or `counting`."""
    path = FILES / f"{name}.txt" if name in available() else Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(
            f"cannot read the prompt {name!r} ({reason}): give a file of captions, one a line, or "
            f"one of {', '.join(available())}"
        ) from None
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"the prompt {name!r} holds 0 captions: give at least 1")
    return lines


def available() -> list[str]:
    """The prompt files that come with this module."""
    return sorted(path.stem for path in FILES.glob("*.txt"))
