"""A second model that has a say in each token: a language model, or an amateur captioner.

    language model   log q(x) + alpha log p(x|picture) - beta log p(x)      guiding, section 3.2
    contrastive      (1 + beta) log p(x|picture) - beta log q(x|picture), where the captioner
                     finds x at least alpha times as likely as its best    arXiv 2210.15097

It must have the captioner's vocabulary. A language model may be prompted (few-shot captions, one a
line): it reads its prompt before, and the captioner does not; what it would write at the end of a
line, `end_token`, then counts as the captioner's end (guiding, section 3.2).

Letters: B pictures, K captions of each, Q tokens of the prompt, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax import special_tokens
from capjax.decode.guidance import guide_by_language_model
from capjax.decode.scores import NEVER, contrast
from capjax.errors import UserError
from capjax.models.attention import kept_as

KINDS = ("language", "contrastive")


@dataclasses.dataclass(frozen=True)
class Companion:
    """model: offers `start_decoding(context)` and `decode_step`, for rows longer than the prompt;
    with `read_tokens`, as this project's models have it, the prompt is read in one pass.

    context: what it reads of each picture, a tree of arrays [B,...]; None for a language model.
    prompt: int32 [Q], or [B,Q] with one for each picture; None: it reads BOS.
    """

    model: nn.Module
    params: Any
    kind: str = "language"
    alpha: float = 1.0
    beta: float = 0.0
    context: Any = None
    prompt: np.ndarray | None = None
    end_token: int | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(f"unknown kind of companion {self.kind!r}: it must be {KINDS}")
        if not (np.isfinite(self.alpha) and self.alpha >= 0 and np.isfinite(self.beta)):
            raise UserError(f"alpha={self.alpha} must be 0 or more, and beta={self.beta} finite")
        if self.kind == "contrastive" and not 0 < self.alpha <= 1:
            raise UserError(
                f"alpha={self.alpha} of contrastive decoding must be above 0, at most 1"
            )
        if self.beta < 0:
            raise UserError(f"beta={self.beta} must be 0 or more")

    @property
    def needs_unconditional(self) -> bool:
        """Whether the captioner's branch without the picture is read."""
        return self.kind == "language" and self.beta != 0

    @property
    def static(self) -> Compiled:
        """What a loop is compiled for."""
        length = 0 if self.prompt is None else np.shape(self.prompt)[-1]
        return Compiled(self.model, self.kind, self.alpha, self.beta, length, self.end_token)

    def arrays(self, batch: int) -> tuple[Any, Any, jax.Array]:
        """(parameters, context [B,...], prompt int32 [B,Q])."""
        context = self.context
        if context is None:
            context = jnp.zeros((batch, 0, 1))
        if self.prompt is None:
            prompt = np.full((batch, 1), special_tokens.of(self.model).start)
        else:
            prompt = np.broadcast_to(self.prompt, (batch, np.shape(self.prompt)[-1]))
        return self.params, context, jnp.asarray(prompt, jnp.int32)


class Told(NamedTuple):
    """What is carried of it."""

    state: Any  # its caches, of rows [B K]


class Compiled(NamedTuple):
    """The part of a companion that is not data."""

    model: nn.Module
    kind: str
    alpha: float
    beta: float
    prompt: int  # Q; 0: BOS alone
    end_token: int | None

    def start(
        self, arrays: Any, each: int, steps: int, written: jax.Array, cache_dtype: str | None
    ) -> Told:
        """Caches [B K,...] that hold the prompt and what captions begin with, `written` [B,P], but
        for the last of these tokens, which the first step reads; `each` is K."""
        params, context, prompt = arrays
        length = prompt.shape[1]
        if length + steps > self.model.max_length:
            raise UserError(
                f"a prompt of {length} tokens and captions of {steps} exceed the other model's "
                f"max_length={self.model.max_length}: shorten the prompt"
            )
        state = self.model.apply({"params": params}, context, method="start_decoding")
        state = self._read(
            params,
            jnp.concatenate([prompt, written], 1)[:, :-1],
            kept_as(cache_dtype, state),
        )
        return Told(jax.tree.map(lambda x: jnp.repeat(x, each, 0), state))

    def combine(self, arrays, told: Told, last, position, logits, scores):
        """(scores [B,K,V], what is carried on) from the captioner's logits [B,K,branches,V].

        `scores` are the guided ones, which a language model does not use: guidance is in its alpha
        and beta.
        """
        params, _, prompt = arrays
        rows = last.reshape(-1)
        first = jnp.repeat(prompt[:, -1], last.shape[1])
        tokens = jnp.where(position == 0, first, rows)
        found, state = self._step(params, tokens, position + prompt.shape[1] - 1, told.state)
        found = found.reshape(*last.shape, -1)
        if self.end_token is not None:
            eos = special_tokens.of(self.model).eos
            found = found.at[..., eos].set(found[..., self.end_token])
            if self.end_token != eos:
                found = found.at[..., self.end_token].set(NEVER)
        if self.kind == "contrastive":
            return contrast(scores, found, self.alpha, self.beta), Told(state)
        blind = logits[:, :, -1]  # of the only branch, where beta is 0 and it does not count
        conditional = logits[:, :, 0]
        return (
            guide_by_language_model(found, conditional, blind, self.alpha, self.beta),
            Told(state),
        )

    def _read(self, params, tokens: jax.Array, state):
        """The caches behind tokens [B,N]."""
        if not tokens.shape[1]:
            return state
        if getattr(self.model, "read_tokens", None):
            position = jnp.int32(0)
            return self.model.apply(
                {"params": params}, tokens, position, state, method="read_tokens"
            )[1]

        def read(position, state):
            token = jax.lax.dynamic_index_in_dim(tokens, position, 1, keepdims=False)
            return self._step(params, token, position, state)[1]

        return jax.lax.fori_loop(0, tokens.shape[1], read, state)

    def _step(self, params, tokens, position, state):
        return self.model.apply({"params": params}, tokens, position, state, method="decode_step")
