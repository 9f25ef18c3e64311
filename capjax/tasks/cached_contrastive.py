"""The gradient of a contrastive loss over a batch whose activations do not fit: in two passes.

Every pair is compared with the whole batch, so the loss cannot be summed over microbatches. But
the towers see each example on its own, and only embeddings meet (GradCache, arXiv 2101.06983,
sec. 3.2). So: embed each microbatch and keep nothing else; take the loss and its gradient with
respect to all embeddings; embed each microbatch again, now with the slope of its embeddings, and
add up the gradients of the parameters. Exact, at the price of one more forward pass.

Letters: B examples, K microbatches, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from capjax.parallel.contrastive import ring_axes


def cached_loss_and_grads(
    embed: Callable[[Any, Any, jax.Array], tuple[Any, Any]],
    loss: Callable[[Any, Any], tuple[jax.Array, dict[str, jax.Array]]],
    params: Any,
    microbatches: Any,
    rng: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array], Any, Any]:
    """(loss, metrics, gradients of the parameters, what else `embed` says, averaged).

    embed(params, microbatch, rng) -> (a tree of embeddings [B/K,E], any tree of arrays, such as new
    statistics of BatchNorm); microbatch k is given fold_in(rng, k) in both passes, so that its
    dropout masks are the same.
    loss(params, embeddings [B,E]) -> (loss, metrics), also a function of the parameters (of a
    learned temperature). microbatches: arrays [K,B/K,...]; microbatch k holds rows k, k+K, ...
    """
    count = len(jax.tree.leaves(microbatches)[0])
    rngs = jax.vmap(lambda k: jax.random.fold_in(rng, k))(jnp.arange(count))
    embeddings, others = jax.lax.map(lambda inputs: embed(params, *inputs), (microbatches, rngs))
    (value, metrics), (grads, slopes) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        params, jax.tree.map(_join, embeddings)
    )

    def one(grads: Any, inputs: tuple[Any, jax.Array, Any]) -> tuple[Any, None]:
        microbatch, key, slope = inputs
        _, pull = jax.vjp(lambda p: embed(p, microbatch, key)[0], params)
        return jax.tree.map(jnp.add, grads, pull(slope)[0]), None

    slopes = jax.tree.map(lambda x: _split(x, count), slopes)
    grads, _ = jax.lax.scan(one, grads, (microbatches, rngs, slopes))
    return value, metrics, grads, jax.tree.map(lambda x: jnp.mean(x, 0), others)


def _join(x: jax.Array) -> jax.Array:
    """[K,B/K,...] -> [B,...], rows in the order of the batch."""
    x = x.swapaxes(0, 1)
    return _on_batch(x.reshape(-1, *x.shape[2:]), 0)


def _split(x: jax.Array, count: int) -> jax.Array:
    """The reverse."""
    return _on_batch(x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), 1)


def _on_batch(x: jax.Array, axis: int) -> jax.Array:
    """`x`, split over the devices along `axis` as batches are, where there are several."""
    axes = ring_axes()
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*[None] * axis, axes)) if axes else x
