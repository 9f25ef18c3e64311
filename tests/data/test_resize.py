"""The table of resizing rules, against two literal steps. Published results: test_preprocess."""

import math

import numpy as np
import pytest
from PIL import Image

from capjax.data import images
from capjax.data.resize import BICUBIC, BILINEAR, RULES, resize

# Name: (shorter side only, filter, where the margin's half goes), and S -> R of some published S.
EXPECTED = {
    "squash": (False, BICUBIC, round, {224: 224}),
    "crop": (True, BICUBIC, round, {224: 224, 336: 336}),
    "squash_bilinear": (False, BILINEAR, round, {224: 224}),
    "squash_0.875": (False, BICUBIC, math.floor, {224: 256, 384: 438}),
    "crop_floor": (True, BICUBIC, math.floor, {224: 224}),
    "crop_0.95": (True, BICUBIC, round, {224: 235, 288: 303}),
    "crop_0.9": (True, BICUBIC, round, {224: 248, 384: 426}),
    "crop_0.875": (True, BICUBIC, round, {224: 256, 299: 341}),
    "crop_0.875_bilinear": (True, BILINEAR, round, {224: 256}),
    "crop_0.875_floor": (True, BICUBIC, math.floor, {224: 256}),
}


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_table_is_this_one():
    assert images.RESIZE_RULES == tuple(EXPECTED) == tuple(RULES)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("shape", [(60, 80), (123, 160), (97, 51), (40, 40)])
def test_two_literal_steps(name, shape):
    shorter_only, filter, half, sides = EXPECTED[name]
    height, width = shape
    for size, side in sides.items():
        scaled = [side, side]
        if shorter_only and width > height:
            scaled = [int(side * width / height), side]
        elif shorter_only:
            scaled = [side, int(side * height / width)]
        array = noise(*shape)
        whole = np.asarray(Image.fromarray(array).resize(scaled, filter))
        left, top = (half((length - size) / 2) for length in scaled)
        got = images.resize(array, size, name)
        np.testing.assert_array_equal(got, whole[top : top + size, left : left + size])
        assert got.flags["C_CONTIGUOUS"]


def test_the_middles_of_an_odd_margin_are_a_pixel_apart():
    """123 x 160 becomes 224 x 291: the margin is 67 and its half 34 or 33."""
    array = noise(123, 160)
    rounded, floored = (resize(array, 224, name) for name in ("crop", "crop_floor"))
    np.testing.assert_array_equal(rounded[:, :-1], floored[:, 1:])
    assert (rounded != floored).any()


def test_a_square_of_the_models_size_is_still_cut_if_the_rule_cuts():
    array = noise(224, 224)
    np.testing.assert_array_equal(resize(array, 224, "crop"), array)
    assert (resize(array, 224, "crop_0.875") != array).any()
