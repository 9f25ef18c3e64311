"""Positions at another resolution, and vocabularies that grow."""

import numpy as np
import pytest

from capjax.weights.adapt import fit, grow, resample_positions

# torch.nn.functional.interpolate(mode="bicubic", antialias=True, align_corners=False) of PyTorch
# 2.13 on the grid arange(9) ** 2 / 10 (3 x 3), to 5 x 5 and to 2 x 2.
GRID = (np.arange(9) ** 2 / 10).astype(np.float32)
TO_FIVE = [
    [-0.07205, -0.06014, -0.01321, 0.15462, 0.26073],
    [0.17337, 0.27259, 0.47836, 0.80502, 0.99844],
    [0.84717, 1.10522, 1.6, 2.21567, 2.56792],
    [2.60903, 3.02592, 3.8097, 4.71438, 5.22547],
    [3.70224, 4.20643, 5.14906, 6.21257, 6.81096],
]
TO_TWO = [[0.28712, 0.81978], [3.02845, 4.70445]]


@pytest.mark.parametrize("expected", [TO_FIVE, TO_TWO])
def test_positions_are_resampled_as_in_torch(expected):
    side = len(expected)
    found = resample_positions(GRID[:, None], (side * side, 1))
    np.testing.assert_allclose(found.reshape(side, side), expected, atol=2e-5)


def test_one_position_a_patch_and_a_class_token():
    value = np.concatenate([[[7.0]], GRID[:, None]])
    assert resample_positions(value, (26, 1)).shape == (26, 1)
    assert resample_positions(value[None], (1, 26, 1))[0, 0] == 7
    same = resample_positions(GRID[:, None], (9, 1))
    np.testing.assert_allclose(same[:, 0], GRID, atol=1e-6)
    # A constant stays one, and a slope stays monotonous.
    np.testing.assert_allclose(resample_positions(np.full((16, 2), 3.0), (49, 2)), 3.0, rtol=1e-6)
    assert resample_positions(np.zeros((10, 2)), (15, 2)) is None


@pytest.mark.parametrize(("path", "shape"), [("image_tower/positions", (1, 26, 4))])
def test_what_can_be_fitted(path, shape):
    assert fit(path, np.zeros((1, 10, 4)), shape).shape == shape
    assert fit("text_tower/positions", np.zeros((77, 4)), (64, 4)) is None
    assert fit("image_tower/stack/norm/scale", np.zeros(4), (5,)) is None
    assert fit("language_model/head/kernel", np.zeros((4, 10)), (4, 12)).shape == (4, 12)


def test_old_rows_stay_and_none_are_lost():
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    more = grow(rows, (53, 8), 0)
    np.testing.assert_array_equal(more[:50], rows)
    np.testing.assert_array_equal(grow(rows.T, (8, 53), 1), more.T)
    assert grow(rows, (49, 8), 0) is None
    assert grow(rows, (53, 9), 0) is None
