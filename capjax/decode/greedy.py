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
) -> Generation:
    """The greedy captions of contexts [B,C,E] at a guidance scale (one number, or one a row).

    `unconditional` [B,C,E] is what the other branch reads: zeros unless given. Where every scale
    is 1 that branch is skipped: it would cancel out.
    UserError for a negative or non-finite scale.
    """
    scales = check_scale(guidance_scale, context.shape[0])
    guided = bool(np.any(scales != 1.0))
    if unconditional is None:
        unconditional = jnp.zeros_like(context)
    return _greedy(model, guided, params, context, unconditional, jnp.asarray(scales))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _greedy(model: nn.Module, guided: bool, params, context, unconditional, scales) -> Generation:
    batch, branches = context.shape[0], 2 if guided else 1
    steps = model.max_length - 1
    special = special_tokens.of(model)
    # Guidance must not extrapolate to what is no word.
    written = jnp.zeros(model.vocab_size).at[jnp.array(special.never_written)].set(-jnp.inf)

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
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(conditional), choice[:, None], 1)[:, 0]
        choice = jnp.where(loop.ended, special.pad, choice)
        return _Loop(
            position=loop.position + 1,
            last=choice,
            ended=loop.ended | (choice == special.eos),
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
        last=jnp.full(batch, special.start, jnp.int32),
        ended=jnp.zeros(batch, bool),
        tokens=jnp.full((batch, steps), special.pad, jnp.int32),
        log_prob=jnp.zeros(batch),
        state=apply("start_decoding", rows),
    )
    loop = jax.lax.while_loop(
        lambda loop: (loop.position < steps) & ~jnp.all(loop.ended), body, loop
    )
    return Generation(loop.tokens, loop.log_prob, ~loop.ended)
