"""What a policy draws, and how likely it finds what was drawn.

Captions come from the project's own decoding loop, inside the step. A picture's captions depend on
the step's key and on its own row in the whole batch alone: neither the mesh nor accumulate_steps
changes them. They are judged by one pass over whole captions, whose log-probabilities are those of
the distribution that was drawn from: logits without what is never written, then everything of
`Options` that forbids and flattens (temperature, top_k, top_p, ...), as in `decode.search`.

Letters: B pictures of a microbatch, K captions of each, T positions, L = T + 1, N = B K, V
vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from capjax import special_tokens
from capjax.decode.options import Options
from capjax.decode.scores import NEVER, flatten, forbid
from capjax.decode.search import search
from capjax.parallel.contrastive import ring_axes


class Rollout(NamedTuple):
    """Captions of pictures: K that were drawn and, if asked for, the greedy one as the last."""

    tokens: jax.Array  # int32 [B,K,L] or [B,K+1,L]: BOS, words, EOS, PAD
    truncated: jax.Array  # bool, the same without L: no EOS within the length


def draw(
    model: nn.Module,
    params: Any,
    image: jax.Array,
    own: jax.Array,
    rng: jax.Array,
    options: Options,
    greedy: bool,
) -> Rollout:
    """Captions of uint8 [B,S,S,3], the rows `own` [B] of the whole batch; nothing is differentiated
    through them."""
    context = model.apply({"params": params}, image, method="encode_image").context
    context = _on_batch_axes(context)
    keys = jax.vmap(lambda row: jax.random.fold_in(rng, row))(own) if options.sample else None
    found = [search(model, params, context, 1.0, options, rng=keys)]
    if greedy:
        found.append(search(model, params, context, 1.0, greedily(options)))
    tokens = jnp.concatenate([each.tokens for each in found], 1)
    first = jnp.full((*tokens.shape[:2], 1), special_tokens.of(model).start, jnp.int32)
    rollout = Rollout(
        jnp.concatenate([first, tokens], -1), jnp.concatenate([each.truncated for each in found], 1)
    )
    return _on_batch_axes(rollout)


def greedily(options: Options) -> Options:
    """The same search for one caption, without drawing."""
    return dataclasses.replace(options, sample=False, samples=1)


def caption_logits(
    model: nn.Module, params: Any, image: jax.Array, tokens: jax.Array, **how: Any
) -> jax.Array:
    """float32 [B,K,T,V] of captions int32 [B,K,L]; each picture is encoded once for its K.

    how: train and rngs.
    """
    train, rngs = how.get("train", False), how.get("rngs")
    batch, each, length = tokens.shape

    def forward(model: nn.Module) -> jax.Array:
        context = model.encode_image(image, train=train).context
        wide = jax.tree.map(lambda x: jnp.repeat(x, each, 0), context)
        _, words = model.encode_text(tokens.reshape(-1, length), train=train)
        return model.caption_logits(words, wide, train=train)

    logits = model.apply({"params": params}, rngs=rngs, method=forward)
    return logits.reshape(batch, each, length - 1, -1)


def possible(logits: jax.Array, model: nn.Module) -> jax.Array:
    """Logits [..,V] with -inf for what no caption holds."""
    never = np.zeros(logits.shape[-1], bool)
    never[list(special_tokens.of(model).never_written)] = True
    return jnp.where(never, NEVER, logits)


def drawn_from(
    scores: jax.Array, tokens: jax.Array, model: nn.Module, options: Options
) -> jax.Array:
    """log p [B,K,T,V] of the distribution from which each token of [B,K,L] was drawn.

    scores: [B,K,T,V] of `possible`.
    """
    forbids = (
        options.repetition_penalty != 1
        or options.no_repeat_ngram
        or options.banned
        or options.min_length
    )
    if forbids:
        shape, eos = scores.shape, special_tokens.of(model).eos
        rows = tokens.reshape(-1, tokens.shape[-1])

        def at(place: jax.Array, scores: jax.Array) -> jax.Array:
            return forbid(scores, rows, place + 1, place, eos, options)

        flat = scores.reshape(len(rows), *shape[2:])
        scores = jax.vmap(at, (0, 1), 1)(jnp.arange(shape[2]), flat).reshape(shape)
    if options.sample:
        scores = flatten(scores, options)
    return jax.nn.log_softmax(scores)


def softened(scores: jax.Array, options: Options) -> jax.Array:
    """log p [..,V] at the temperature of the options alone: all of the vocabulary keeps a share, so
    that the divergence from another policy is finite."""
    return jax.nn.log_softmax(scores / options.temperature if options.sample else scores)


def chosen(log_p: jax.Array, tokens: jax.Array) -> jax.Array:
    """[B,K,T]: of the tokens [B,K,L] that stand there, 0 for those that are never written."""
    found = jnp.take_along_axis(log_p, tokens[..., 1:, None], -1)[..., 0]
    return jnp.where(jnp.isneginf(found), 0, found)


def _on_batch_axes(tree: Any) -> Any:
    """Arrays [B,...] split over the devices as batches are, where there are several."""
    axes = ring_axes()
    if not axes:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec(axes)), tree)
