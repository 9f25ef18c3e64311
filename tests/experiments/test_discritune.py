"""DiscriTune: the oracles of its loss, its controls, and what its claims require."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from capjax import config as configs
from capjax.errors import UserError
from capjax.rewards.captions import of_tokens
from capjax.rewards.self_retrieval import retrieval
from capjax.special_tokens import SpecialTokens
from capjax.tasks import policy_baselines, policy_estimators
from experiments.discritune import claims, recipe
from experiments.discritune.published import NUMBERS, OTHERS_RUNS, START

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def losses(scores, scale=1.0):
    """-log p of each picture for texts whose cosines with the pictures are these [B,B]."""
    scores = jnp.array(scores, jnp.float32)
    own = jnp.arange(len(scores))
    return -retrieval(scores[:, None], jnp.eye(len(scores)), own, scale)[:, 0]


def policy_loss(loss, log_p, baseline):
    """Of one caption a picture, whose mean log p are these."""
    rewards, mean = -loss[:, None], jnp.float32(-baseline)
    advantage = policy_baselines.advantages("running_mean", rewards, None, mean)
    weight = jnp.full((len(loss), 1, 1), 1 / len(loss))
    return policy_estimators.reinforce(jnp.array(log_p)[:, None, None], advantage, weight)


def test_loss_by_hand():
    """mean of (L - b) log p: 0 where the baseline is the loss, -0.897209 without one."""
    loss = losses([[0.3, 0.1], [0.2, 0.4]])
    np.testing.assert_allclose(loss, [0.598139] * 2, rtol=1e-5)
    assert abs(policy_loss(loss, [-1.0, -2.0], 0.598139)) < 1e-6
    np.testing.assert_allclose(policy_loss(loss, [-1.0, -2.0], 0.0), -0.897209, rtol=1e-5)
    np.testing.assert_allclose(losses([[0.3, 0.1], [0.2, 0.4]], 100)[0], 2.06e-9, atol=1e-6)


def test_the_target_first_and_the_diagonal_masked_is_cross_entropy():
    scores = jax.random.normal(jax.random.key(0), (7, 7))
    expected = optax.softmax_cross_entropy_with_integer_labels(scores, jnp.arange(7))
    np.testing.assert_allclose(losses(scores), expected, atol=1e-6)


def test_log_p_of_a_caption_leaves_the_end_out_but_counts_it():
    """[-1, -2, -3] with the end at the third place is -1, without an end -2; an empty one is 0."""
    rows = jnp.array([[[1, 5, 5, 2], [1, 5, 5, 5], [1, 2, 0, 0]]])
    captions = of_tokens(rows, SpecialTokens(), jnp.arange(1), {})
    how = ("caption", "counted")
    weight = policy_estimators.token_weights(captions.written, captions.words, 1, 0, how)
    log_p = jnp.array([-1.0, -2.0, -3.0])
    np.testing.assert_allclose((weight * log_p).sum(-1)[0], [-1, -2, 0], rtol=1e-6)


def test_the_gradient_reaches_the_policy_alone():
    """What the retriever says of a caption is a number: it is not differentiated."""
    loss = losses([[0.3, 0.1], [0.2, 0.4]])

    def of_policy(log_p):
        return policy_loss(loss, log_p, 0.0)

    slope = jax.grad(of_policy)(jnp.array([-1.0, -2.0]))
    np.testing.assert_allclose(slope, loss / 2, rtol=1e-6)  # less likely, the more it loses


def test_controls_and_what_is_none():
    own = recipe.retrieval("run", "", 0, "")
    assert own["weight"] == 1
    assert recipe.retrieval("run", "", 0, "flipped") == own | {"weight": -1.0}
    shuffled = recipe.retrieval("run", "file.npz", 3, "shuffled")
    assert shuffled["name"].endswith("shuffled")
    assert (shuffled["of"]["negatives"], shuffled["of"]["hard"]) == ("file.npz", 3)
    with pytest.raises(UserError, match="control='twice' must be one of '', 'shuffled'"):
        recipe.check("small", "greedy", "twice")
    with pytest.raises(UserError, match="drawing='beam' must be one of 'greedy', 'sampled'"):
        recipe.check("small", "beam", "")
    with pytest.raises(UserError, match="style='c' must be one of a, b, both"):
        recipe.scenes("c", "train", 10)


def test_styles_differ_in_pictures_and_in_captions():
    a, b, both = (recipe.scenes(style, "test", 10) for style in ("a", "b", "both"))
    assert not set(a["textures"]) & set(b["textures"])
    assert not set(a["backgrounds"]) & set(b["backgrounds"])
    assert set(a["captions"]) == {"generic", "short"}
    assert b["captions"] == "human"
    assert both["seed"] != a["seed"] == b["seed"]  # the retriever has seen none of their scenes


def test_configs_at_the_papers_size(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = configs.load("configs/discritune/reward.py")
    assert (config.steps, config.batch_size) == (20 * 1132, 100)
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adam", 1e-7)
    assert config.optimizer.schedule.name == "constant"
    assert config.optimizer.frozen == ("^image_tower/",)
    task = config.task
    assert (task.baseline, task.normalise, task.end_token) == ("running_mean", "caption", "counted")
    assert task.sampling.to_dict() == {"sample": False}
    assert config.tokenizer.max_length - 1 == 30
    long = configs.load("configs/discritune/reward.py:epochs=2,pictures=3000000")
    assert long.steps == 60_000
    drawn = configs.load("configs/discritune/reward.py:size=small,drawing=sampled,control=flipped")
    assert drawn.task.sampling.samples == 5
    assert drawn.task.rewards.retrieval.weight == -1
    assert 300 <= drawn.steps <= 1000
    assert drawn.batch_size == claims.AMONG


def made(found, attribute=0.5, cider=1.0):
    """A system's captions of 200 pictures that score so on average."""
    noise = np.random.default_rng(0).normal(0, 0.05, 200)
    return {
        "found": found + noise,
        "attribute": (np.arange(200) < 200 * attribute).astype(float),
        "cider": cider + noise,
    }


def retrieving(**changed):
    systems = {
        "before": made(0.1, 0.0),
        "tuned": made(0.6, 0.9),
        "shuffled": made(0.1),
        "flipped": made(0.02),
    }
    return {f.name: f.holds for f in claims.retrieval(**systems | changed)}


def crossing(**changed):
    systems = {
        "before_a": made(0.1, cider=1.0),
        "tuned_a": made(0.6, cider=0.8),
        "before_b": made(0.1, cider=0.3),
        "tuned_b": made(0.4, cider=0.5),
    }
    return {f.name: f.holds for f in claims.domains(**systems | changed)}


def test_claims_hold_of_what_the_paper_says():
    assert all(retrieving().values())
    assert all(crossing().values())


@pytest.mark.parametrize(
    ("findings", "name", "changed"),
    [
        (retrieving, "retrieval_rises", {"tuned": made(0.35, 0.9)}),
        (retrieving, "attributes_are_mentioned", {"tuned": made(0.6, 0.0)}),
        (retrieving, "ablation_shuffled_rewards", {"shuffled": made(0.2)}),
        (retrieving, "ablation_flipped_rewards", {"flipped": made(0.1)}),
        (crossing, "cross_domain_captions", {"tuned_b": made(0.4, cider=0.2)}),
        (crossing, "cross_domain_captions", {"tuned_a": made(0.6, cider=0.4)}),
        (crossing, "cross_domain_captions", {"tuned_a": made(0.6, cider=1.1)}),
        (crossing, "cross_domain_retrieval", {"tuned_b": made(0.1, cider=0.5)}),
    ],
)
def test_claims_that_can_fail(findings, name, changed):
    assert findings(**changed)[name] is False


def test_the_readme_shows_every_published_number():
    text = (ROOT / "experiments" / "discritune" / "README.md").read_text()
    for number in (*NUMBERS, *OTHERS_RUNS):
        assert f"{number.value:g}" in text
    for row in START:
        assert f"{row.cider:g}/{row.bleu_4:g}/{row.words:.1f}" in text
