"""Baselines: what is taken from a caption's reward before it weighs the caption's log-probability.

    none           0
    greedy         the reward of the picture's greedy caption (self-critical, arXiv 1612.00563)
    leave_one_out  the mean of the picture's other captions (RLOO; Kool et al. 2019)
    picture_mean   the mean of all the picture's captions, its own included
    running_mean   the mean of the mean rewards of all steps before, 0 at the first

A baseline that does not depend on the caption itself leaves the gradient's expectation as it is.
picture_mean does depend on it: the expectation is (K - 1) / K of the true gradient.

Letters: B pictures, K captions of each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from capjax.errors import UserError

BASELINES = ("none", "greedy", "leave_one_out", "picture_mean", "running_mean")


def check(baseline: str, samples: int) -> None:
    """Raises UserError for a baseline that there is not, or that needs more captions a picture."""
    if baseline not in BASELINES:
        raise UserError(f"baseline={baseline!r} must be one of {', '.join(BASELINES)}")
    if baseline in ("leave_one_out", "picture_mean") and samples < 2:
        raise UserError(
            f"baseline={baseline!r} compares the captions of a picture with each other: set "
            "config.task.sampling.samples to 2 or more"
        )


def advantages(
    baseline: str, rewards: jax.Array, greedy: jax.Array | None, running_mean: jax.Array
) -> jax.Array:
    """rewards [B,K] less their baseline; greedy [B]: the rewards of the greedy captions."""
    if baseline == "greedy":
        return rewards - greedy[:, None]
    if baseline == "leave_one_out":
        count = rewards.shape[1]
        return (rewards - rewards.mean(1, keepdims=True)) * (count / (count - 1))
    if baseline == "picture_mean":
        return rewards - rewards.mean(1, keepdims=True)
    if baseline == "running_mean":
        return rewards - running_mean
    return rewards


def first_mean() -> dict[str, jax.Array]:
    """A running mean of nothing."""
    return {"sum": jnp.zeros(()), "count": jnp.zeros(())}


def mean_of(running: dict[str, jax.Array]) -> jax.Array:
    return running["sum"] / jnp.maximum(running["count"], 1)


def with_batch(running: dict[str, jax.Array], reward: jax.Array) -> dict[str, jax.Array]:
    """The running mean after a step whose mean reward was `reward`."""
    return {"sum": running["sum"] + reward, "count": running["count"] + 1}
