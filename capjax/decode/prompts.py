"""What captions begin with: the tokens of prompts, and their reading in one pass.

The prompts of a batch may differ in length. A caption writes its own words while longer prompts of
others last, so what is read in one pass is as much as all have: the whole, where they are equally
long. The pass is as long as the longest prompt whatever the shortest is, so that a loop is compiled
once for both: what it reads too much of a prompt is read again, at the same places.

Letters: B pictures, P tokens of a prompt, T positions, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax import special_tokens
from capjax.errors import UserError

POSITIONS = 8  # whose logits are there at the same time: of a long prompt they would be many


class Begun(NamedTuple):
    """What the loop begins with."""

    position: jax.Array  # int32: tokens of the prompts that are read
    state: Any  # the model's caches, [B branches,...]
    log_p: jax.Array  # [B,P,branches]: of each token of the prompt, 0 for those to come


def begin(
    model: nn.Module,
    prompt: np.ndarray | None,
    prompt_length: np.ndarray | None,
    batch: int,
    steps: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens that are read first [B], those that must follow [B,P], how many of these [B])."""
    special = special_tokens.of(model)
    prompt = np.zeros((batch, 0), np.int32) if prompt is None else np.asarray(prompt, np.int32)
    lengths = (
        np.full(batch, prompt.shape[1]) if prompt_length is None else np.asarray(prompt_length)
    )
    if special.bos is None and prompt.shape[1]:
        first, prompt, lengths = prompt[:, 0], prompt[:, 1:], lengths - 1
    else:
        first = np.full(batch, special.start, np.int32)
    if np.any(lengths < 0) or np.any(lengths > prompt.shape[1]):
        raise UserError(f"prompt_length must lie between 0 and the prompt's {prompt.shape[1]}")
    if prompt.shape[1] >= steps:
        raise UserError(
            f"a prompt of {prompt.shape[1]} tokens leaves no room in max_length="
            f"{model.max_length}: shorten it, or raise tokenizer.max_length"
        )
    return first, prompt, lengths.astype(np.int32)


def in_one_pass(prompt: jax.Array, *models: nn.Module) -> bool:
    """Whether prompts [B,P] are read so: all models can, and there is something to gain."""
    return prompt.shape[1] > 1 and all(getattr(m, "read_tokens", None) for m in models)


def read(
    apply: Callable, state: Any, first: jax.Array, prompt: jax.Array, lengths: jax.Array
) -> Begun:
    """The prompts in one pass of `apply(method, ...)`, for caches [B branches,...]."""
    batch, size = prompt.shape
    branches = len(jax.tree.leaves(state)[0]) // batch
    tokens = jnp.concatenate([first[:, None], prompt], 1)[:, :size]
    states, state = apply("read_tokens", jnp.repeat(tokens, branches, 0), jnp.int32(0), state)

    def log_p(at: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = apply("token_logits", at[0]).reshape(batch, branches, -1)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), at[1][:, None, None], -1)
        return chosen[..., 0]

    each = jax.lax.map(log_p, (states.swapaxes(0, 1), prompt.T), batch_size=POSITIONS)
    start = lengths.min()
    each = jnp.where(jnp.arange(size)[:, None] < start, each.swapaxes(0, 1), 0)
    return Begun(start, state, each)


def forced(prompt: jax.Array, lengths: jax.Array, position: jax.Array):
    """(is the next token the prompt's [B], which one [B])."""
    if not prompt.shape[1]:
        return jnp.zeros(len(lengths), bool), jnp.zeros(len(lengths), jnp.int32)
    at = jnp.minimum(position, prompt.shape[1] - 1)
    return position < lengths, jax.lax.dynamic_index_in_dim(prompt, at, 1, keepdims=False)
