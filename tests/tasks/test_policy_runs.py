"""Runs of a policy through the training loop: interrupted or not, the same numbers."""

import types

import jax
import numpy as np
import pytest
import toy

from capjax.checkpoint import Checkpoints
from capjax.errors import UserError
from capjax.logs import MEASURED, read_metrics
from capjax.rollout_step import per_step
from capjax.runs import open_run
from capjax.train import train


def config(**task):
    config = toy.get_config("steps=4,devices=1")
    config.model = {"name": "policy_toy"}
    config.tokenizer.max_length = 8
    config.accumulate_steps = 2
    config.checkpoint.every = 2
    config.optimizer.learning_rate = 0.05
    config.optimizer.schedule.name = "constant"  # a run of fewer steps begins alike
    config.task = {
        "name": "capjax.tasks.policy",
        "rewards": {
            "cider": {"name": "capjax.rewards.cider", "corpus": {"name": "toy", "size": 16}},
            "short": {"name": "capjax.rewards.length", "most": 3, "weight": 0.1},
        },
        "baseline": "running_mean",
        "estimator": "ppo",
        "passes": 2,
        "kl_weight": 0.01,
        "sampling": {"samples": 2},
        **task,
    }
    return config


def numbers(directory):
    lines = read_metrics(directory / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("policy")
    train(config(), directory)
    return directory


def test_resumed_run_gives_the_same_numbers(undisturbed, tmp_path):
    """The starting model and the running mean are in the checkpoint."""
    first = config()
    first.steps = 2
    train(first, tmp_path)
    train(config(), tmp_path)
    expected = numbers(undisturbed)
    assert numbers(tmp_path) == expected
    ours, theirs = (open_run(directory).params for directory in (tmp_path, undisturbed))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert expected[-1]["kl"] > expected[1]["kl"] > expected[0]["kl"]


def test_the_learning_rate_goes_by_steps_not_by_updates():
    """With two updates a step, updates 2 and 3 have the rate of step 1."""
    task = types.SimpleNamespace(passes=2)
    assert [per_step(float, task)(count) for count in range(5)] == [0, 0, 1, 1, 2]
    assert per_step(float, object()) is float


def test_what_else_is_carried_is_no_parameter(undisturbed):
    with Checkpoints(undisturbed / "checkpoints") as checkpoints:
        assert set(checkpoints.shapes(4)) == {"table", "colour"}


def test_what_rewarded_it_is_not_needed_to_open_it(undisturbed, monkeypatch):
    monkeypatch.setattr("capjax.rewards.weighted.instantiate", lambda *args, **kwargs: 1 / 0)
    assert open_run(undisturbed).step == 4


def test_skipping_updates_is_refused(tmp_path):
    wrong = config()
    wrong.spikes.window, wrong.spikes.action = 4, "skip"
    with pytest.raises(UserError, match="'skip' is not for tasks that draw"):
        train(wrong, tmp_path)
