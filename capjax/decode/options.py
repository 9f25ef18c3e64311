"""How captions are searched for and drawn: everything but the guidance scale.

Hashable, because a decoding loop is compiled for its options. Lengths are in tokens and do not
count what the caption was made to begin with.

Raises `UserError` for values that cannot be.
"""

from __future__ import annotations

import dataclasses
import math

from capjax.errors import UserError

CACHE_DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Options:
    """By default greedy: the best token each time.

    num_beams: beam search with so many beams (each of a group, with `groups`); samples: so many
    independent captions of a picture, drawn; with both, beams of each are not offered.
    """

    num_beams: int = 1
    groups: int = 1  # of beams that avoid each other's tokens (Vijayakumar et al. 2018)
    diversity_penalty: float = 0.0  # for each earlier group that chose the token at this position
    length_penalty: float = 1.0  # a finished beam's score is log p / length ** this
    early_stopping: bool | str = False  # True: once enough are finished; "never": never guess
    sample: bool = False
    samples: int = 1
    temperature: float = 1.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0  # 0: may repeat
    min_length: int = 0  # no end before so many tokens
    max_length: int | None = None  # tokens, the end included; None: what the model has room for
    banned: tuple[tuple[int, ...], ...] = ()  # words, each as its tokens
    guidance_schedule: tuple[float, ...] = ()  # see `schedule_of`
    keep_scores: bool = False  # log-probabilities of each token, of both branches
    cache_dtype: str | None = None  # of keys and values, as "bfloat16"; None: the model's own

    def __post_init__(self):
        object.__setattr__(self, "banned", tuple(tuple(map(int, word)) for word in self.banned))
        object.__setattr__(self, "guidance_schedule", tuple(map(float, self.guidance_schedule)))
        for name in ("num_beams", "groups", "samples"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("top_k", "no_repeat_ngram", "min_length"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must be 0 or more")
        for name in ("temperature", "repetition_penalty"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise UserError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("top_p", "typical_p"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)} must be above 0 and at most 1")
        if not 0 <= self.min_p < 1:
            raise UserError(f"min_p={self.min_p} must be at least 0 and below 1")
        if self.num_beams % self.groups:
            raise UserError(f"groups={self.groups} does not divide num_beams={self.num_beams}")
        if self.num_beams > 1 and (self.sample or self.samples > 1):
            raise UserError("num_beams and sampling exclude each other: choose one")
        if self.samples > 1 and not self.sample:
            raise UserError(
                f"samples={self.samples} without sample=True would be one caption {self.samples} "
                "times"
            )
        if self.early_stopping not in (True, False, "never"):
            raise UserError(
                f"early_stopping={self.early_stopping!r} must be True, False or 'never'"
            )
        if self.max_length is not None and self.max_length < 1:
            raise UserError(f"max_length={self.max_length} must be at least 1")
        if any(not word for word in self.banned):
            raise UserError("a banned word has no tokens")
        if self.cache_dtype not in (None, *CACHE_DTYPES):
            known = ", ".join(CACHE_DTYPES)
            raise UserError(f"cache_dtype={self.cache_dtype!r} must be None, or one of {known}")

    @property
    def per_picture(self) -> int:
        """K: how many captions of a picture are under way at once."""
        return max(self.num_beams, self.samples)
