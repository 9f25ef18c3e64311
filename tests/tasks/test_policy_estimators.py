"""PPO's clip, the divergence, the weights of tokens and the baselines, against numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.rewards.captions import of_tokens
from capjax.special_tokens import SpecialTokens
from capjax.tasks import policy_baselines as baselines
from capjax.tasks import policy_estimators as estimators


def weights(rows, normalise, end_token):
    """Of one picture's captions."""
    captions = of_tokens(jnp.array(rows)[None], SpecialTokens(), jnp.arange(1), {})
    count = estimators.lengths(captions.written, captions.words, end_token).sum()
    how = (normalise, end_token)
    return estimators.token_weights(captions.written, captions.words, len(rows), count, how)


def test_ppo_clips_what_would_go_further():
    """Ratios 1.5 and 0.5 with eps 0.2: only gains are cut, losses count in full."""
    old, ratios = jnp.zeros((1, 4, 1)), jnp.array([1.5, 0.5, 1.5, 0.5])
    advantage, even = jnp.array([[1.0, 1.0, -1.0, -1.0]]), jnp.ones((1, 4, 1))

    def loss(log_p):
        return estimators.ppo(log_p, old, advantage, even, 0.2)

    log_p = jnp.log(ratios)[None, :, None]
    (value, cut), slope = jax.value_and_grad(loss, has_aux=True)(log_p)
    np.testing.assert_allclose(value, -(1.2 + 0.5 - 1.5 - 0.8), rtol=1e-6)
    np.testing.assert_array_equal(cut[0, :, 0], [True, False, False, True])
    np.testing.assert_allclose(slope[0, :, 0], [0, -0.5, 1.5, 0], atol=1e-6)


def test_divergence_and_entropy_by_hand():
    p, q = jnp.array([0.5, 0.25, 0.25, 0.0]), jnp.array([0.25, 0.25, 0.5, 0.0])
    found = estimators.divergence(jnp.log(p), jnp.log(q))
    np.testing.assert_allclose(found, 0.25 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(estimators.entropy(jnp.log(p)), 1.5 * np.log(2), rtol=1e-6)
    assert estimators.divergence(jnp.log(p), jnp.log(p)) == 0


def test_loss_of_the_clip_reward_paper():
    """[5, end, pad], log p [-1, -2, -9], R = 0.1: 0.1 (1 + 2) / 2 (arXiv 2205.13115)."""
    w = weights([[1, 5, 2, 0]], "batch", "scored")
    loss = estimators.reinforce(jnp.array([[[-1.0, -2, -9]]]), jnp.array([[0.1]]), w)
    np.testing.assert_allclose(loss, 0.15, rtol=1e-6)


@pytest.mark.parametrize(
    ("row", "end_token", "expected"),
    [
        ([1, 5, 5, 2], "counted", -1.0),  # DiscriTune (arXiv 2304.01662): EOS in the length alone
        ([1, 5, 5, 5], "counted", -2.0),  # without an end
        ([1, 5, 5, 2], "ignored", -1.5),  # NDLB (arXiv 2409.03025)
        ([1, 5, 5, 2], "scored", -2.0),
        ([1, 2, 0, 0], "counted", 0.0),  # no word: nothing to learn
        ([1, 2, 0, 0], "ignored", 0.0),
    ],
)
def test_mean_log_p_of_a_caption(row, end_token, expected):
    log_p = jnp.array([[[-1.0, -2.0, -3.0]]])
    w = weights([row], "caption", end_token)
    np.testing.assert_allclose(jnp.sum(w * log_p), expected, rtol=1e-6)


def test_padding_weighs_nothing():
    w = weights([[1, 5, 2, 0], [1, 5, 4, 5]], "none", "scored")
    np.testing.assert_allclose(w[0], [[0.5, 0.5, 0], [0.5, 0.5, 0.5]])


def test_baselines_by_hand():
    rewards, greedy, mean = jnp.array([[1.0, 2.0, 6.0]]), jnp.array([2.5]), jnp.float32(0.5)
    for name, expected in {
        "none": [1, 2, 6],
        "greedy": [-1.5, -0.5, 3.5],
        "leave_one_out": [1 - 4, 2 - 3.5, 6 - 1.5],
        "picture_mean": [-2, -1, 3],
        "running_mean": [0.5, 1.5, 5.5],
    }.items():
        found = baselines.advantages(name, rewards, greedy, mean)
        np.testing.assert_allclose(found[0], expected, rtol=1e-6, err_msg=name)


def test_running_mean_is_read_before_it_is_moved():
    """Batch means 1, 3, 2: baselines 0, 1, 2, then 2 (DiscriTune)."""
    running, read = baselines.first_mean(), []
    for value in (1.0, 3.0, 2.0):
        read.append(float(baselines.mean_of(running)))
        running = baselines.with_batch(running, jnp.float32(value))
    assert [*read, float(baselines.mean_of(running))] == [0, 1, 2, 2]
