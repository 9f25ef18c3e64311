"""Contrastive training and image-text matching with hard negatives, together (BLIP, 2201.12086).

    loss = contrastive_weight * L_itc + matching_weight * L_itm

L_itc is the softmax loss of `capjax.tasks.contrastive_losses` over the batch. L_itm is the
cross-entropy of the matching head's yes or no on the B pairs of the batch, on each picture with a
wrong text and on each text with a wrong picture: 3B pairs. The wrong ones are those that the
contrastive half finds most alike: drawn from the batch in proportion to the softmax of the logits,
never with a caption that is word for word the pair's own (section 3.1, after ALBEF, 2107.07651). No
gradient passes through the drawing.

A wrong picture's states may lie on another device; they are fetched from there. With
config.accumulate_steps > 1 pairs are compared, and wrong ones drawn, within their microbatch.

The model offers `encode_image`, `embed_text` and `match`, and owns `logit_scale`:
`capjax.models.blip_matching`.

Letters: B batch, S side in pixels, L caption positions, C states of a picture, E their width, F
width of the common space.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from capjax.errors import UserError
from capjax.models.init import init
from capjax.tasks.contrastive_losses import MAX_LOGIT_SCALE, clip_scale, contrastive_loss
from capjax.tasks.same_captions import caption_numbers, duplicates


class Task:
    """`loss(params, batch, rng)`: the weighted sum of both losses over the global batch.

    With ignore_duplicates, pairs of equal captions are no negatives of L_itc either. Of the metric
    `matching_accuracy` two thirds are had by always saying no.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        contrastive_weight: float = 1.0,
        matching_weight: float = 1.0,
        ignore_duplicates: bool = False,
        max_scale: float = MAX_LOGIT_SCALE,
    ):
        if not hasattr(type(model), "match"):
            raise UserError(
                f"the model {type(model).__module__} has no matching head: choose "
                "capjax.models.blip_matching"
            )
        self.model = model
        self.contrastive_weight, self.matching_weight = contrastive_weight, matching_weight
        self.ignore_duplicates, self.max_scale = ignore_duplicates, max_scale

    def init(self, rng: jax.Array):
        """The model's parameters, a plain nested dict."""
        return init(self.model, rng)

    def loss(self, params, batch, rng: jax.Array):
        """batch: image uint8 [B,S,S,3], tokens int32 [B,L] -> (loss, metrics)."""
        read_rng, match_rng, draw_rng = jax.random.split(rng, 3)
        tokens = batch["tokens"]

        def read(model):
            features = model.encode_image(batch["image"], train=True)
            return features, model.embed_text(tokens, train=True)

        (image, context), text = self._apply(params, read_rng, read)
        scale, captions = clip_scale(params["logit_scale"], self.max_scale), caption_numbers(tokens)
        contrastive, first = contrastive_loss(
            "softmax", image, text, scale, groups=captions if self.ignore_duplicates else None
        )
        drawn = hard_negatives(draw_rng, scale * image @ text.T, captions)
        contexts, texts, is_match, counted = pairs(context, tokens, *drawn)
        logits = self._apply(params, match_rng, lambda m: m.match(contexts, texts, train=True))
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, is_match)
        count = jnp.sum(counted)
        matching = jnp.sum(nll * counted) / count
        right = (logits.argmax(-1) == is_match) * counted
        loss = self.contrastive_weight * contrastive + self.matching_weight * matching
        return loss, {
            "contrastive_loss": contrastive,
            "contrastive_accuracy": first,
            "matching_loss": matching,
            "matching_accuracy": jnp.sum(right) / count,
            "logit_scale": scale,
            "duplicate_captions": duplicates(captions),
        }

    def _apply(self, params, rng: jax.Array, method):
        return self.model.apply({"params": params}, rngs={"dropout": rng}, method=method)


def hard_negatives(
    rng: jax.Array, logits: jax.Array, captions: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(a wrong text for each picture, a wrong picture for each text, whether there are any).

    logits [B,B]: pictures by texts; captions int32 [B]: equal for equal ones -> int32 [B], int32
    [B], bool [B]. Drawn in proportion to exp(logit) among the pairs of other captions. Where there
    is no other, the indices mean nothing.
    """
    other = captions[:, None] != captions
    logits = jnp.where(other, jax.lax.stop_gradient(logits), -jnp.inf)
    for_image, for_text = jax.random.split(rng)
    return (
        jax.random.categorical(for_image, logits, axis=1),
        jax.random.categorical(for_text, logits.T, axis=1),
        other.any(1),
    )


def pairs(
    context: jax.Array, tokens: jax.Array, text: jax.Array, image: jax.Array, there: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The 3B pairs: states [3B,C,E], tokens [3B,L], int32 [3B] (1: match), bool [3B] (it counts).

    context [B,C,E], tokens [B,L]; the rest as of `hard_negatives`. Rows 3i to 3i + 2 are the pair
    i, its picture with a wrong text and its text with a wrong picture, so that all that pair i is
    compared with lies on its own device.
    """

    def three(own: jax.Array, second: jax.Array, third: jax.Array) -> jax.Array:
        rows = jnp.stack([own, second, third], 1)
        return rows.reshape(-1, *rows.shape[2:])

    yes = jnp.ones_like(there)
    return (
        three(context, context, context[image]),
        three(tokens, tokens[text], tokens),
        three(yes, ~yes, ~yes).astype(jnp.int32),
        three(yes, there, there),
    )
