"""Any Python function of strings as a reward: an entailment model, a language model, a rule.

    config.task.rewards.polite = dict(
        name="capjax.rewards.function", function="my_rewards:polite", options=dict(word="please")
    )

calls `my_rewards.polite(candidates, references, keys, **options)` with a list of strings, the list
of references of each and the key of the picture of each, and takes a number for each. The function
must give the same numbers for the same strings, or a resumed run will not be the undisturbed one.

Letters: b pictures, K captions of each. Raises `UserError` for a function that is not there.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capjax.errors import UserError


class Reward:
    """function: "module:name"."""

    def __init__(self, *, function: str, options: Mapping[str, Any] | None = None):
        module, _, name = function.partition(":")
        try:
            self._function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"the reward's function={function!r} cannot be found: give 'module:name'"
            ) from error
        self._where, self._options = function, dict(options or {})

    def score_texts(
        self,
        keys: Sequence[str],
        references: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
    ) -> np.ndarray:
        """float64 [b,K]."""
        each = len(candidates[0])
        values = self._function(
            [text for group in candidates for text in group],
            [own for own in references for _ in range(each)],
            [key for key in keys for _ in range(each)],
            **self._options,
        )
        values = np.asarray(values, np.float64)
        if values.shape != (len(keys) * each,):
            raise UserError(
                f"the reward's function {self._where!r} gave {values.shape} numbers for "
                f"{len(keys) * each} captions: it must give one for each"
            )
        return values.reshape(len(keys), each)
