"""Greedy decoding with a key-value cache, and with guidance as a batch of two.

A guided row is two rows of the decoder, [context; zeros], kept side by side ([B,2,...] reshaped to
[2B,...]) so that both stay on one device when B is sharded. Each step is one decoder call of size
2B; the guided choice is fed to both (guiding, arXiv 2307.16686, section 3.1).

Letters: B captions, C context tokens, E embedding width, T = max_length - 1 positions,
V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax import special_tokens
from capjax.decode.guidance import check_scale, guide
from capjax.errors import UserError


class Generation(NamedTuple):
    """Captions as tokens."""

    tokens: jax.Array  # int32 [B,T]: words, EOS, then PAD
    log_prob: jax.Array  # float32 [B]: log p(caption | context), of the conditional branch alone
    truncated: jax.Array  # bool [B]: no EOS within T tokens


class _Loop(NamedTuple):
    """What the decoding loop carries."""

    position: jax.Array  # int32: how many tokens are written
    last: jax.Array  # int32 [B]: the token written last
    ended: jax.Array  # bool [B]: EOS is written
    tokens: jax.Array
    log_prob: jax.Array
    state: object  # the model's caches, of 2B rows when guided


def greedy(
    model: nn.Module,
    params,
    context: jax.Array,
    guidance_scale: float | Sequence[float] = 1.0,
    unconditional: jax.Array | None = None,
    prompt: np.ndarray | None = None,
) -> Generation:
    """The greedy captions of contexts [B,C,E] at a guidance scale (one number, or one a row).

    `unconditional` [B,C,E] is what the other branch reads: zeros unless given. Where every scale
    is 1 that branch is skipped: it would cancel out.
    `prompt` int32 [B,P] is what every text begins with, after BOS; in a vocabulary without one,
    its first token is read in BOS's place, and is not among the tokens that come back.
    UserError for a negative or non-finite scale, and for a prompt that leaves no room.
    """
    scales = check_scale(guidance_scale, context.shape[0])
    guided = bool(np.any(scales != 1.0))
    if unconditional is None:
        unconditional = jnp.zeros_like(context)
    first, prompt = _begin(model, prompt, context.shape[0])
    return _greedy(
        model, guided, params, context, unconditional, jnp.asarray(scales), first, prompt
    )


def _begin(model: nn.Module, prompt: np.ndarray | None, batch: int) -> tuple[jax.Array, jax.Array]:
    """(the tokens that are read first [B], those that must follow [B,P])."""
    special = special_tokens.of(model)
    prompt = np.zeros((batch, 0), np.int32) if prompt is None else np.asarray(prompt, np.int32)
    if special.bos is None and prompt.shape[1]:
        first, prompt = prompt[:, 0], prompt[:, 1:]
    else:
        first = np.full(batch, special.start, np.int32)
    if prompt.shape[1] >= model.max_length - 1:
        raise UserError(
            f"a prompt of {prompt.shape[1]} tokens leaves no room in max_length="
            f"{model.max_length}: shorten it, or raise tokenizer.max_length"
        )
    return jnp.asarray(first), jnp.asarray(prompt)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _greedy(
    model: nn.Module, guided: bool, params, context, unconditional, scales, first, prompt
) -> Generation:
    batch, branches = context.shape[0], 2 if guided else 1
    steps = model.max_length - 1
    special = special_tokens.of(model)
    # Guidance must not extrapolate to what is no word.
    written = (
        jnp.zeros(model.vocab_size).at[jnp.array(special.never_written, jnp.int32)].set(-jnp.inf)
    )

    def apply(method, *args):
        return model.apply({"params": params}, *args, method=method)

    def scores(tokens, position, state):
        """Guided scores and the conditional branch's logits, each [B,V]."""
        rows = jnp.repeat(tokens, branches)
        logits, state = apply("decode_step", rows, position, state)
        by_branch = logits.reshape(batch, branches, -1)
        conditional = by_branch[:, 0]
        if guided:
            return guide(conditional, by_branch[:, 1], scales), conditional, state
        return conditional, conditional, state

    def body(loop: _Loop) -> _Loop:
        score, conditional, state = scores(loop.last, loop.position, loop.state)
        choice = jnp.argmax(score + written, -1).astype(jnp.int32)
        if prompt.shape[1]:
            at = jnp.minimum(loop.position, prompt.shape[1] - 1)
            asked = jax.lax.dynamic_index_in_dim(prompt, at, 1, keepdims=False)
            choice = jnp.where(loop.position < prompt.shape[1], asked, choice)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(conditional), choice[:, None], 1)[:, 0]
        choice = jnp.where(loop.ended, special.pad, choice)
        return _Loop(
            position=loop.position + 1,
            last=choice,
            ended=loop.ended | ((choice == special.eos) & (loop.position >= prompt.shape[1])),
            tokens=loop.tokens.at[:, loop.position].set(choice),
            log_prob=loop.log_prob + jnp.where(loop.ended, 0.0, log_prob),
            state=state,
        )

    rows = context
    if guided:
        both = jnp.stack([context, unconditional], 1)
        rows = both.reshape(2 * batch, *context.shape[1:])
    loop = _Loop(
        position=jnp.int32(0),
        last=first,
        ended=jnp.zeros(batch, bool),
        tokens=jnp.full((batch, steps), special.pad, jnp.int32),
        log_prob=jnp.zeros(batch),
        state=apply("start_decoding", rows),
    )
    loop = jax.lax.while_loop(
        lambda loop: (loop.position < steps) & ~jnp.all(loop.ended), body, loop
    )
    return Generation(loop.tokens, loop.log_prob, ~loop.ended)
