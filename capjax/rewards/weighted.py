"""The rewards of a config, added up by their weights, and what each needs before it can be asked.

Sections name a module (`name`), its `weight` (1 unless given) and the fields of its `Reward`:

    {"clip": {"name": "capjax.rewards.clip_similarity", "run": DIR, "weight": 2.0}, ...}

What the host looks up of pictures travels with the batch as "look_up/<reward>/<array>"; what it
tells of captions once they are drawn as "rewards/<reward>" [b,K] and "rows/<reward>" [b,K,R].

Letters: B pictures, b of a microbatch, K captions of each, R positions of another vocabulary.
Raises `UserError` for sections that cannot be, and for a reward of strings that is no number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from capjax.config import instantiate
from capjax.errors import UserError
from capjax.rewards.captions import Captions


class Rewards:
    """`names` in the order of the alphabet. See the module's docstring."""

    def __init__(self, sections: Mapping[str, Mapping[str, Any]], model: nn.Module, tokenizer: Any):
        if not sections:
            raise UserError(
                "config.task.rewards is empty: name at least one, such as "
                "clip=dict(name='capjax.rewards.clip_similarity', run=DIR)"
            )
        self._weights, self._rewards = {}, {}
        for name in sorted(sections):
            fields = dict(sections[name])
            weight = float(fields.pop("weight", 1.0))
            where = f"config.task.rewards.{name}"
            if not math.isfinite(weight):
                raise UserError(f"{where}.weight={weight} must be a finite number")
            given = {"model": model, "tokenizer": tokenizer, "reward": name}
            self._weights[name] = weight
            self._rewards[name] = instantiate(fields, "Reward", where=where, if_taken=given)
            if not any(hasattr(self._rewards[name], x) for x in ("score", "score_texts")):
                raise UserError(f"{where}: its Reward has neither score nor score_texts")
        self._texts = {n: r for n, r in self._rewards.items() if hasattr(r, "score_texts")}
        self._translated = {
            n: r for n, r in self._rewards.items() if getattr(r, "tokenizer", None) is not None
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._rewards)

    @property
    def reads_texts(self) -> bool:
        """Whether captions must go through the host before they can be judged."""
        return bool(self._texts or self._translated)

    @property
    def arrays(self) -> dict[str, Any]:
        """Frozen parameters by reward."""
        return {n: r.arrays for n, r in self._rewards.items() if hasattr(r, "arrays")}

    def look_up(
        self, keys: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, np.ndarray]:
        """What the host knows of these pictures: arrays [B,...]."""
        return {
            f"look_up/{name}/{key}": value
            for name, reward in self._rewards.items()
            if hasattr(reward, "look_up")
            for key, value in reward.look_up(keys, references).items()
        }

    def prepare(self, arrays: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:
        """What the rewards need of the pictures of the whole batch."""
        found = {}
        for name, reward in self._rewards.items():
            if hasattr(reward, "prepare"):
                start = f"look_up/{name}/"
                own = {k.removeprefix(start): x for k, x in batch.items() if k.startswith(start)}
                found[name] = reward.prepare(arrays.get(name), batch, own)
        return found

    def tell(
        self,
        keys: Sequence[str],
        references: Sequence[Sequence[str]],
        texts: Sequence[Sequence[str]],
    ) -> dict[str, np.ndarray]:
        """What the host says of captions [b][K]."""
        told = {}
        for name, reward in self._texts.items():
            values = np.asarray(reward.score_texts(keys, references, texts))
            if not np.isfinite(values).all():
                row, column = np.argwhere(~np.isfinite(values))[0]
                raise UserError(
                    f"config.task.rewards.{name} gave {values[row, column]} for the caption "
                    f"{texts[row][column]!r} of {keys[row]!r}: a reward must be a finite number"
                )
            told[f"rewards/{name}"] = values.astype(np.float32)
        for name, reward in self._translated.items():
            rows = [[reward.text(text) for text in group] for group in texts]
            told[f"rows/{name}"] = np.array(rows, np.int32)
        return told

    def score(
        self,
        arrays: Mapping[str, Any],
        prepared: Mapping[str, Any],
        captions: Captions,
        told: Mapping[str, jax.Array],
    ) -> dict[str, jax.Array]:
        """Each reward's own value [b,K], and under "" the weighted sum."""
        values = {}
        for name, reward in self._rewards.items():
            if name in self._texts:
                values[name] = told[f"rewards/{name}"]
            else:
                values[name] = reward.score(arrays.get(name), prepared.get(name), captions)
        values[""] = sum(self._weights[name] * value for name, value in values.items())
        return values
