"""What is made of three seeds' scores: differences with intervals, and the paper's directions."""

import numpy as np
import pytest

from capjax import config as configs
from capjax.metrics.measure import mean_of
from experiments.guiding import flickr8k_seeds as seeds

PICTURES = 200


def found(column, gains):
    """Scores at both scales, of one seed for each gain; noise is common to both scales."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(len(gains), PICTURES))
    spread = 0.05 * generator.normal(size=(len(gains), PICTURES))
    return {
        seeds.LOW: {column: [mean_of(values) for values in noise]},
        seeds.HIGH: {
            column: [mean_of(v + g + s) for v, g, s in zip(noise, gains, spread, strict=True)]
        },
    }


def test_a_change_is_paired_and_counts_seeds():
    told = seeds.change(found("recall_at_1", [0.1, 0.12, 0.08]), "recall_at_1")
    assert told["difference"] == pytest.approx(0.1, abs=0.02)
    assert told["difference"] == pytest.approx(told["at_2"] - told["at_1"])
    assert 0.05 < told["low"] < told["high"] < 0.15
    assert told["seeds_that_rise"] == 3
    torn = seeds.change(found("recall_at_1", [0.3, -0.3, 0.05]), "recall_at_1")
    assert torn["low"] < 0 < torn["high"]
    assert torn["seeds_that_rise"] == 2


@pytest.mark.parametrize(
    ("column", "gains", "verdict"),
    [
        ("disjoint_recall_at_1", [0.1, 0.1, 0.1], "agrees"),
        ("recall_at_1", [-0.1, -0.1, -0.1], "disagrees"),
        ("cider", [-0.1, -0.1, -0.1], "agrees"),
        ("cider", [0.1, 0.1, 0.1], "disagrees"),
        ("clipscore", [0.2, -0.2, 0.01], "within the noise"),
    ],
)
def test_directions_are_those_of_the_published_table(column, gains, verdict):
    told = seeds.direction(column, seeds.change(found(column, gains), column))
    assert told["verdict"] == verdict
    assert (told["published"] < 0) == (column == "cider")


def test_captioners_and_judge_learn_from_disjoint_pictures(shared):
    data = shared / "data" / "flickr8k"
    halves = [
        configs.instantiate(
            configs.load(f"configs/{kind}/flickr8k.py:data={data},half={half}").data.train,
            "Source",
        )
        for kind, half in (("guiding", seeds.CAPTIONERS), ("contrastive", seeds.JUDGE))
    ]
    keys = [{half.encoded(i)["key"] for i in range(len(half))} for half in halves]
    assert [len(own) for own in keys] == [3000, 3000]
    assert not keys[0] & keys[1]
