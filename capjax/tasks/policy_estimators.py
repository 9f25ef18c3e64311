"""Estimators of the policy gradient, as losses whose gradient they are.

    reinforce   - A log p                                        Williams 1992
    ppo         - min(rho A, clip(rho, 1 - eps, 1 + eps) A)      arXiv 1707.06347, equation 7

for each token, rho being its probability by that of the policy that drew it; A, the advantage, is
one number a caption. As long as the policy is the one that drew, both have one gradient.

What a token weighs in the sum is said by `token_weights`:

    normalise   none      1 / captions: the gradient of the mean reward, without bias
                caption   1 / (captions x its own length)
                batch     1 / tokens of all captions (arXiv 2205.13115)
    end_token   scored    EOS counts as a token like others: it was drawn like others
                counted   its log p is left out, but it counts in the length (arXiv 2304.01662)
                ignored   it is in neither (arXiv 2409.03025)

Letters: B pictures, K captions of each, T positions, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from capjax.errors import UserError

ESTIMATORS = ("reinforce", "ppo")
NORMALISATIONS = ("none", "caption", "batch")
END_TOKENS = ("scored", "counted", "ignored")


def check(estimator: str, passes: int, clip: float, normalise: str, end_token: str) -> None:
    """Raises UserError for what is none of these."""
    for name, value, known in (
        ("estimator", estimator, ESTIMATORS),
        ("normalise", normalise, NORMALISATIONS),
        ("end_token", end_token, END_TOKENS),
    ):
        if value not in known:
            raise UserError(f"{name}={value!r} must be one of {', '.join(known)}")
    if passes < 1 or (passes > 1 and estimator != "ppo"):
        raise UserError(
            f"passes={passes} with estimator={estimator!r}: captions can be learned from once, and "
            "with estimator='ppo' several times"
        )
    if not 0 < clip < 1:
        raise UserError(f"clip={clip} must be above 0 and below 1: how far a ratio may go from 1")


def token_weights(
    written: jax.Array, words: jax.Array, captions: int, tokens: jax.Array, how: tuple[str, str]
) -> jax.Array:
    """[B,K,T]: what each token's term counts; the sum over all microbatches is the batch's loss.

    written: bool, True up to EOS, it included; words: without it; captions: of the whole batch;
    tokens: of the whole batch, as `lengths` counts them; how: (normalise, end_token).
    """
    normalise, end_token = how
    counted = (written if end_token == "scored" else words).astype(jnp.float32)
    if normalise == "batch":
        return counted / jnp.maximum(tokens, 1)
    if normalise == "caption":
        own = jnp.maximum(lengths(written, words, end_token), 1)
        return counted / (captions * own[..., None])
    return counted / captions


def lengths(written: jax.Array, words: jax.Array, end_token: str) -> jax.Array:
    """float32 [B,K]: tokens of each caption, as `end_token` counts them."""
    return (words if end_token == "ignored" else written).sum(-1).astype(jnp.float32)


def reinforce(log_p: jax.Array, advantage: jax.Array, weights: jax.Array) -> jax.Array:
    """Scalar; log_p [B,K,T], advantage [B,K], weights [B,K,T]."""
    return -jnp.sum(weights * advantage[..., None] * log_p)


def ppo(
    log_p: jax.Array, old: jax.Array, advantage: jax.Array, weights: jax.Array, clip: float
) -> tuple[jax.Array, jax.Array]:
    """(scalar, which tokens' gradient the clip has cut [B,K,T]); old: log_p when it was drawn."""
    ratio, advantage = jnp.exp(log_p - old), advantage[..., None]
    free, held = ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage
    return -jnp.sum(weights * jnp.minimum(free, held)), held < free


def divergence(log_p: jax.Array, reference: jax.Array) -> jax.Array:
    """[B,K,T]: KL(p || reference) of the next token, over the vocabulary of [B,K,T,V]."""
    share = jnp.exp(log_p)
    return jnp.sum(jnp.where(share > 0, share * (log_p - reference), 0), -1)


def entropy(log_p: jax.Array) -> jax.Array:
    """[B,K,T]: of the next token, in nats."""
    share = jnp.exp(log_p)
    return -jnp.sum(jnp.where(share > 0, share * log_p, 0), -1)
