"""Pure losses over global arrays. Letters: B batch, T positions, V vocabulary, E embedding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from capjax.tasks.contrastive_losses import clip_scale, contrastive_loss


def caption_cross_entropy(
    logits: jax.Array, targets: jax.Array, words: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean over all words of -log p(target): (loss, number of words).

    logits [B,T,V], targets int32 [B,T], words bool [B,T] (False: padding, not counted).
    """
    return mean_over_words(caption_nll(logits, targets, words), words)


def caption_nll(logits: jax.Array, targets: jax.Array, words: jax.Array) -> jax.Array:
    """[B]: -log p(caption), the sum over its words; arguments as above."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return jnp.sum(losses * words, axis=1)


def mean_over_words(nll: jax.Array, words: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums over captions [B] -> (mean over all words [B,T] of the batch, number of words)."""
    count = jnp.sum(words)
    return jnp.sum(nll) / jnp.maximum(count, 1), count


def softmax_contrastive(
    image: jax.Array, text: jax.Array, log_scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Symmetric InfoNCE, mean of both directions: (loss, share of pictures whose text is first).

    image and text [B,E] of unit length, row i of one belongs to row i of the other;
    log_scale: log of the learned scale (1 / temperature), clipped at log 100.
    """
    return contrastive_loss("softmax", image, text, clip_scale(log_scale))
