"""What tells a policy that learns from one that cheats its reward: logged with every step.

Sums over microbatches, of which `metrics` makes what goes to the log:

    reward, reward_sd       of the drawn captions, weighted; reward_<name> of each by itself
    greedy_reward           of the greedy captions, where they are drawn
    advantage_sd            how far the rewards are from their baseline
    kl                      KL(policy || starting model) of a caption, in nats: the sum over its
                            tokens of the divergence of the next token, over the whole vocabulary
    entropy                 of the next token, in nats
    length                  tokens without EOS
    repetition              share of bigrams of tokens that stood in the caption before
    vocabulary              distinct tokens in the captions of the batch
    truncated, empty        shares of captions without an end, without a word
    policy_loss, caption_loss, ratio_clipped (share of tokens, with estimator="ppo")

Letters: B pictures, K captions of each, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from capjax.rewards.captions import Captions
from capjax.rewards.repetition import repeated_share

_BY_TOKEN = ("entropy", "ratio_clipped")


def sums_of_captions(
    captions: Captions, truncated: jax.Array, vocab_size: int
) -> dict[str, jax.Array]:
    """What is seen from the captions alone; truncated bool [B,K]."""
    tokens = captions.tokens[..., 1:]
    used = jnp.zeros(vocab_size).at[tokens.reshape(-1)].max(captions.words.reshape(-1) * 1.0)
    return {
        "captions": jnp.float32(truncated.size),
        "tokens": captions.written.sum().astype(jnp.float32),
        "length": captions.lengths.sum().astype(jnp.float32),
        "repetition": repeated_share(tokens, captions.words, 2).sum(),
        "vocabulary": used,
        "truncated": truncated.sum().astype(jnp.float32),
        "empty": (captions.lengths == 0).sum().astype(jnp.float32),
    }


def sums_of_rewards(
    values: Mapping[str, jax.Array], advantage: jax.Array, samples: int
) -> dict[str, jax.Array]:
    """values: each reward [B,K], under "" the weighted sum; a greedy caption may be the last."""
    sums = {
        f"reward_{name}" if name else "reward": value[:, :samples].sum()
        for name, value in values.items()
    }
    reward = values[""]
    sums["reward_square"] = jnp.square(reward[:, :samples]).sum()
    sums["advantage_square"] = jnp.square(advantage).sum()
    if reward.shape[1] > samples:
        sums["greedy_reward"] = reward[:, samples].sum() * samples  # a mean over K B, as the others
    return sums


def metrics(sums: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The log's values from sums over the whole batch."""
    sums = dict(sums)
    captions, tokens = sums.pop("captions"), sums.pop("tokens")
    found = {
        "vocabulary": jnp.sum(sums.pop("vocabulary") > 0),
        "policy_loss": sums.pop("policy_loss"),
    }
    if "caption_loss" in sums:
        found["caption_loss"] = sums.pop("caption_loss")
    square, advantage = sums.pop("reward_square"), sums.pop("advantage_square")
    for name, value in sums.items():
        found[name] = value / (tokens if name in _BY_TOKEN else captions)
    found["reward_sd"] = jnp.sqrt(jnp.maximum(square / captions - found["reward"] ** 2, 0))
    found["advantage_sd"] = jnp.sqrt(advantage / captions)
    return found
