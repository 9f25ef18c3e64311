"""The guiding paper's mechanism works on the toy world, and fails when it is taken out."""

import json
import pathlib

import numpy as np
import pytest

from experiments.guiding import claims

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STEPS = 350  # a quarter of the reproduced run: enough for the turn, not for its exact place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("claims")


@pytest.fixture(scope="module")
def toy(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return claims.Toy(folder, f"steps={STEPS}")


def test_guidance_makes_captions_specific(toy):
    holds, measured = claims.works(toy, "guided")
    assert holds, measured
    assert measured["flip"] == pytest.approx(claims.PREDICTED_FLIP, abs=0.25)


@pytest.mark.parametrize("branches", ["swapped", "both_real"])
def test_wrong_branches_do_not(toy, branches):
    holds, measured = claims.works(toy, branches)
    assert not holds, measured


def test_without_a_second_branch_the_scale_has_no_effect(toy):
    assert toy.captions(1.0, "both_real") == toy.captions(3.0, "both_real")


def test_only_zeroed_embeddings_train_the_unconditional_branch(toy, folder, monkeypatch):
    """f(., 0) becomes p(caption); after training on blackened pictures it is something else."""
    monkeypatch.chdir(ROOT)
    ablated = claims.Toy(folder, f"masking=pixels,steps={STEPS}")
    assert toy.unconditional_error() < claims.UNCONDITIONAL_BOUND
    assert ablated.unconditional_error() > claims.UNCONDITIONAL_BOUND


def test_agreement_is_the_price(toy):
    plain, guided = (toy.measure(toy.captions(scale)) for scale in (1.0, 2.0))
    assert guided["cider"] < plain["cider"]
    assert guided["own_recall_at_1"] >= 2 * plain["own_recall_at_1"]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [([0.0, 0.4, 0.9], 1.12), ([0.0, 0.2, 0.4], np.nan), ([0.9, 0.9, 0.9], np.nan)],
)
def test_flip_is_where_half_of_the_captions_are_specific(rates, expected, monkeypatch):
    monkeypatch.setattr(claims, "SCALES_TRIED", (1.0, 1.1, 1.2))
    np.testing.assert_allclose(claims.flip(rates), expected, atol=1e-9)


@pytest.mark.parametrize("scale", ["small", "flickr8k", "beyond"])
def test_committed_results_name_every_claim(scale):
    """What the README reports is what a run of the code wrote."""
    path = ROOT / "experiments" / "guiding" / "results" / f"{scale}.json"
    record = json.loads(path.read_text())
    names = {finding["name"] for finding in record["findings"]}
    required = {
        "small": {"attribute_rate", "flip", "retrieval", "cider_falls", "ablation_pixels_masked"},
        "flickr8k": {"sight", "retrieval_judged", "retrieval_own", "cider_falls", "table"},
        "beyond": {"trade_off", "criterion", "beams", "stopping_rule", "distillation", "one_pass"},
    }
    assert required[scale] <= names
