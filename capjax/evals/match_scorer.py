"""How well captions match pictures, by a matching model of ours: BLIP's two scores.

    itm    the probability of a match, in [0, 1]: each pair is read by itself
    itc    the cosine of both embeddings, in [-1, 1]: any dual encoder has it

"BLIPScore" of the ranking-and-fusion paper (arXiv 2306.11593); it does not say which of the two.
Numbers of different modes or weights are not to be compared.

Letters: N pictures, M captions, B batch, S side in pixels, L tokens, C states of a picture, E
their width, F width of the common space.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax.errors import UserError
from capjax.evals.encoder import Encoder
from capjax.parallel.rows import get_rows, put_rows

MODES = ("itm", "itc")


class Scores(NamedTuple):
    """Of M captions."""

    values: np.ndarray  # float32 [M]
    cut: np.ndarray  # bool [M]: the caption has more tokens than the row, and was scored cut


def match_probability(logits: jax.Array) -> jax.Array:
    """[..,2] -> [..]: the softmax's share of class 1, a match."""
    return jax.nn.softmax(logits)[..., 1]


def cosine(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Unit vectors [M,F] each -> [M] in [-1, 1]."""
    return np.clip(np.einsum("mf,mf->m", image, text), -1, 1)


class MatchScorer:
    """`score(images, captions, owner)`: one number for each caption.

    encoder: the run's model, parameters and tokenizer, and B, how many pictures, and pairs, are
    read at a time. UserError for an unknown mode, and for "itm" with a model that has no matching
    head.
    """

    def __init__(self, encoder: Encoder, mode: str = "itm"):
        if mode not in MODES:
            raise UserError(f"mode={mode!r} must be one of {', '.join(MODES)}")
        if mode == "itm" and not hasattr(type(encoder.model), "match"):
            raise UserError(
                f"the model {type(encoder.model).__module__} has no matching head: choose a run of "
                "capjax.models.blip_matching, or mode='itc'"
            )
        self.encoder, self.mode = encoder, mode

    def score(
        self, images: np.ndarray, captions: Sequence[str], owner: Sequence[int] | None = None
    ) -> Scores:
        """uint8 [N,S,S,3] and M captions; caption i is of the picture owner[i], or of picture i.

        A picture is encoded once, however many captions it has.
        """
        owner = (
            np.arange(len(captions), dtype=np.int32)
            if owner is None
            else np.asarray(owner, np.int32)
        )
        if not len(captions):
            return Scores(np.zeros(0, np.float32), np.zeros(0, bool))
        if self.mode == "itc":
            values = cosine(self.encoder.images(images)[owner], self.encoder.texts(captions))
        else:
            values = self._match(images, self.encoder.rows(captions), owner)
        tokenizer = self.encoder.tokenizer
        return Scores(values, np.array([len(tokenizer.ids(c)) > tokenizer.room for c in captions]))

    def _match(self, images: np.ndarray, rows: np.ndarray, owner: np.ndarray) -> np.ndarray:
        model, params, size = self.encoder.model, self.encoder.params, self.encoder.batch_size
        values = np.zeros(len(rows), np.float32)
        for first in range(0, len(images), size):
            own = np.flatnonzero((owner >= first) & (owner < first + size))
            if not len(own):
                continue
            states = _states(model, params, _put(images[first : first + size], size, params))
            for start in range(0, len(own), size):
                part = own[start : start + size]
                at, tokens = (_put(x, size, params) for x in (owner[part] - first, rows[part]))
                found = get_rows(_probabilities(model, params, states, at, tokens))
                values[part] = found[: len(part)]
        return values


def _put(rows: np.ndarray, size: int, params) -> jax.Array:
    """On the devices, filled up with zeros to one size: nothing is compiled for another."""
    filled = np.zeros((size, *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    return put_rows(filled, params)


@functools.partial(jax.jit, static_argnums=0)
def _states(model: nn.Module, params, images: jax.Array) -> jax.Array:
    """uint8 [B,S,S,3] -> [B,C,E]."""
    return model.apply({"params": params}, images, method="encode_image").context


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(
    model: nn.Module, params, states: jax.Array, at: jax.Array, tokens: jax.Array
) -> jax.Array:
    """States [B,C,E] of pictures, which of them [B] goes with which text [B,L] -> float32 [B]."""
    logits = model.apply({"params": params}, jnp.take(states, at, 0), tokens, method="match")
    return match_probability(logits)
