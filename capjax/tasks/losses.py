"""Pure losses over global arrays. Letters: B batch, T positions, V vocabulary, E embedding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

# CLIP clips its learned logit scale so that logits never exceed 100 (arXiv 2103.00020, sec. 2.5).
MAX_LOGIT_SCALE = 100.0


def caption_cross_entropy(
    logits: jax.Array, targets: jax.Array, words: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean over all words of -log p(target): (loss, number of words).

    logits [B,T,V], targets int32 [B,T], words bool [B,T] (False: padding, not counted).
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    count = jnp.sum(words)
    return jnp.sum(losses * words) / jnp.maximum(count, 1), count


def softmax_contrastive(
    image: jax.Array, text: jax.Array, log_scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Symmetric InfoNCE, mean of both directions: (loss, share of pictures whose text is first).

    image and text [B,E] of unit length, row i of one belongs to row i of the other;
    log_scale: log of the learned scale (1 / temperature), clipped at log 100.
    """
    scale = jnp.minimum(jnp.exp(log_scale), MAX_LOGIT_SCALE)
    logits = scale * image @ text.T
    labels = jnp.arange(logits.shape[0])
    to_text = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    to_image = optax.softmax_cross_entropy_with_integer_labels(logits.T, labels)
    accuracy = jnp.mean(jnp.argmax(logits, 1) == labels)
    return (jnp.mean(to_text) + jnp.mean(to_image)) / 2, accuracy
