"""Linear probe and nearest neighbours: optimality conditions, the search's grid, votes by hand."""

import numpy as np
import pytest
from scipy.optimize import check_grad

from capjax.errors import UserError
from capjax.metrics.linear_probe import fit, search
from capjax.metrics.neighbours import neighbour_scores

GENERATOR = np.random.default_rng(0)
LABELS = np.arange(90) % 3
FEATURES = GENERATOR.normal(size=(90, 4)) + 1.5 * np.eye(3, 4)[LABELS]


@pytest.mark.parametrize("penalty", [1e-2, 1.0, 30.0])
def test_the_probe_minimises_its_objective(penalty):
    probe = fit(FEATURES, LABELS, 3, penalty)

    def objective(flat):
        weights, bias = flat[:12].reshape(3, 4), flat[12:]
        logits = FEATURES @ weights.T + bias
        log_sum = np.log(np.exp(logits).sum(axis=1))
        return np.sum(log_sum - logits[np.arange(90), LABELS]) + penalty / 2 * np.sum(weights**2)

    best = np.concatenate([probe.weights.ravel(), probe.bias])
    assert probe.converged
    # At the minimum the gradient is zero, and every step away costs.
    assert check_grad(objective, lambda flat: np.zeros(15), best) < 1e-2
    for direction in GENERATOR.normal(size=(20, 15)):
        assert objective(best + 0.05 * direction) > objective(best)


def test_a_larger_penalty_gives_smaller_weights():
    sizes = [np.abs(fit(FEATURES, LABELS, 3, penalty).weights).sum() for penalty in (0.1, 10, 1000)]
    assert sizes[0] > sizes[1] > sizes[2] > 0


def test_the_probe_classifies():
    accuracy = np.mean(fit(FEATURES, LABELS, 3, 1.0).scores(FEATURES).argmax(axis=1) == LABELS)
    shuffled = np.mean(
        fit(FEATURES, np.roll(LABELS, 45 + 1), 3, 1.0).scores(FEATURES).argmax(1) == LABELS
    )
    assert accuracy > 0.75 > shuffled


def test_the_search_visits_seven_penalties_and_then_halves_the_step():
    visited = []

    def score(penalty):
        visited.append(np.log10(penalty))
        return -abs(np.log10(penalty) - 0.9)

    best, tried = search(score)
    assert visited[:7] == pytest.approx([-6, -4, -2, 0, 2, 4, 6])
    assert np.log10(best) == pytest.approx(0.875)  # the nearest on a grid of 8 a decade
    assert len(visited) == len(tried) <= 15
    assert all(round(8 * exponent, 6) == round(8 * exponent) for exponent in visited)


def test_the_search_stays_within_its_ends():
    best, tried = search(lambda penalty: penalty)
    assert best == pytest.approx(1e6)
    assert max(tried) <= 1e6 * (1 + 1e-9)
    best, _ = search(lambda penalty: 1.0)
    assert best == pytest.approx(1e6)  # of equals the simplest probe


def test_neighbours_by_hand():
    known = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    labels = np.array([0, 1, 1, 1])
    query = np.array([[5.0, 0.0], [0.0, 0.1]])
    one = neighbour_scores(query, known, labels, 2, k=1)
    assert one.argmax(axis=1).tolist() == [0, 1]
    assert one[0].tolist() == [2.0, 0.0]  # 1 + cosine
    three = neighbour_scores(query, known, labels, 2, k=3)
    assert three.argmax(axis=1).tolist() == [1, 1]  # outvoted
    assert three[0, 0] == pytest.approx(2.0)


def test_neighbours_in_blocks_are_the_same(monkeypatch):
    query, known = GENERATOR.normal(size=(50, 6)), GENERATOR.normal(size=(30, 6))
    labels = GENERATOR.integers(4, size=30)
    whole = neighbour_scores(query, known, labels, 4, k=5)
    monkeypatch.setattr("capjax.metrics.neighbours._BLOCK", 70)
    assert np.array_equal(neighbour_scores(query, known, labels, 4, k=5), whole)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(FEATURES, LABELS[:-1], 3, 1.0), "do not match"),
        (lambda: fit(FEATURES * np.nan, LABELS, 3, 1.0), "not finite"),
        (lambda: fit(FEATURES, LABELS, 3, -1.0), "penalty of a linear probe is -1"),
        (lambda: fit(FEATURES, LABELS * 0, 3, 1.0), "at least two classes"),
        (lambda: fit(FEATURES, LABELS, 2, 1.0), "labels from 0 to 2 for 2 classes"),
        (lambda: neighbour_scores(FEATURES, FEATURES, LABELS, 3, k=91), "k=91 neighbours of 90"),
        (lambda: neighbour_scores(FEATURES, FEATURES, LABELS[1:], 3), "one label each"),
        (lambda: neighbour_scores(FEATURES, FEATURES[:, 1:], LABELS, 3), "same size"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
