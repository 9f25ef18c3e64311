"""How long captions are, in words and in characters: mean and standard deviation.

A specific caption can be a long one, so tables of guided captioning report lengths beside scores.
Words are what white space separates, characters count blanks and punctuation; the standard
deviation is that of the captions themselves (divided by their number).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.errors import UserError


def word_counts(captions: Sequence[str]) -> np.ndarray:
    """Words of each caption: int64 [N]."""
    return np.array([len(caption.split()) for caption in captions], np.int64)


def character_counts(captions: Sequence[str]) -> np.ndarray:
    """Characters of each caption, without blanks around it: int64 [N]."""
    return np.array([len(caption.strip()) for caption in captions], np.int64)


def lengths(captions: Sequence[str]) -> dict[str, float]:
    """Mean and standard deviation: `words`, `words_sd`, `characters`, `characters_sd`.

    Raises:
      UserError: no captions.
    """
    if not captions:
        raise UserError("there are no captions to measure: give at least one")
    words, characters = word_counts(captions), character_counts(captions)
    return {
        "words": float(words.mean()),
        "words_sd": float(words.std()),
        "characters": float(characters.mean()),
        "characters_sd": float(characters.std()),
    }
