"""RandAugment and colour jitter: formulas of single operations, ranges, determinism; sides."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from capjax.data import augment, colour_jitter
from capjax.errors import UserError

BILINEAR = Image.Resampling.BILINEAR


def noise(height=20, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height=32, width=48):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 7, columns * 5, rows + columns], -1).astype(np.uint8)


@pytest.mark.parametrize("policy", augment.POLICIES)
def test_the_generator_decides_everything(policy):
    image = noise()
    first, again, other = (
        [augment.rand_augment(image, rng, policy=policy) for _ in range(20)]
        for rng in map(np.random.default_rng, (1, 1, 2))
    )
    for a, b in zip(first, again, strict=True):
        assert a.dtype == np.uint8
        assert a.shape == image.shape
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_what_is_drawn_does_not_depend_on_the_picture():
    rngs = [np.random.default_rng(5) for _ in range(2)]
    for image, rng in zip((noise(9, 9), noise(50, 60)), rngs, strict=True):
        augment.rand_augment(image, rng, layers=3)
    assert rngs[0].bit_generator.state == rngs[1].bit_generator.state


def test_a_quarter_of_the_pictures_meets_no_operation_in_two_layers():
    """Each layer applies with 0.5; every operation but equal pictures changes this noise."""
    image, rng = noise(), np.random.default_rng(0)
    same = sum(
        np.array_equal(image, augment.rand_augment(image, rng, 2, 9, "timm")) for _ in range(400)
    )
    # 100 expected, plus auto_contrast (of noise that fills the range) alone or with a skipped one.
    assert 85 < same < 160


def test_both_directions_and_both_filters_are_drawn_alike(monkeypatch):
    operations, filters = augment.POLICIES["timm"]
    monkeypatch.setitem(augment.POLICIES, "timm", ({"rotate": operations["rotate"]}, filters))
    monkeypatch.setattr(augment, "PROBABILITY", 1.0)
    image, rng = noise(), np.random.default_rng(0)
    seen = Counter(augment.rand_augment(image, rng, 1, 9, "timm").tobytes() for _ in range(400))
    assert len(seen) == 4
    assert min(seen.values()) > 70


def test_no_layers_leave_the_picture():
    image = noise()
    np.testing.assert_array_equal(
        augment.rand_augment(image, np.random.default_rng(0), layers=0), image
    )


@pytest.mark.parametrize(
    ("operation", "axis", "by"), [("translate_x", 1, 9), ("translate_y", 0, 18)]
)
def test_shifts_are_shares_of_the_side_they_run_along(operation, axis, by):
    """0.45 of 20 px and of 40 px; what comes in from outside is grey."""
    image = noise(40, 20)
    for sign in (1, -1):
        moved = augment.apply(image, operation, 10, sign, "timm", BILINEAR)
        new = [slice(None)] * 3
        new[axis] = slice(-by, None) if sign > 0 else slice(by)
        expected = np.roll(image, -sign * by, axis)
        expected[tuple(new)] = 128
        np.testing.assert_array_equal(moved, expected)


def test_blip_shifts_by_at_most_ten_pixels_whatever_the_size():
    image = noise(100, 200)
    moved = augment.apply(image, "translate_x", 5, 1, "blip", BILINEAR)
    np.testing.assert_array_equal(moved[:, :-5], image[:, 5:])


@pytest.mark.parametrize(
    ("operation", "policy", "magnitude", "expected"),
    [
        ("invert", "timm", 9, lambda x: 255 - x),
        ("posterize", "timm", 10, lambda x: x & 0xF0),
        ("posterize", "timm", 5, lambda x: x & 0xC0),
        ("posterize", "timm_increasing", 9, lambda x: x & 0x80),
        ("posterize", "timm_increasing", 10, lambda x: x & 0x80),  # not 0 bits, which is black
        ("solarize", "timm", 5, lambda x: np.where(x < 128, x, 255 - x)),
        ("solarize", "timm_increasing", 9, lambda x: np.where(x < 26, x, 255 - x)),
        ("solarize_add", "timm", 10, lambda x: np.where(x < 128, np.minimum(x + 110, 255), x)),
        ("brightness", "blip", 5, lambda x: x),
        ("brightness", "timm", 0, lambda x: np.trunc(x * 0.1 + 1e-4)),
        ("identity", "blip", 5, lambda x: x),
    ],
)
def test_operations_on_values_by_their_formula(operation, policy, magnitude, expected):
    image = noise()
    got = augment.apply(image, operation, magnitude, 1, policy).astype(int)
    np.testing.assert_allclose(got, expected(image.astype(int)), atol=0)


def test_increasing_operations_do_nothing_at_magnitude_zero():
    image = ramp()
    for name in augment.POLICIES["timm_increasing"][0]:
        if name in ("auto_contrast", "equalize", "invert"):
            continue  # they have no strength
        got = augment.apply(image, name, 0, 1, "timm_increasing", BILINEAR)
        reference = image & 0xF0 if name == "posterize" else image  # 4 bits at the weakest
        np.testing.assert_array_equal(got, reference, err_msg=name)


def test_rotations_and_shears_reach_their_bounds():
    image = np.zeros((101, 101, 3), np.uint8)
    image[50, 50:] = 255  # a ray to the right
    turned = augment.apply(image, "rotate", 10, 1, "timm", BILINEAR)
    rows, columns = np.nonzero(turned[..., 0] > 160)
    angle = np.degrees(np.arctan2(50 - rows, columns - 50))[columns > 70]
    assert abs(angle.mean() - 30) < 1
    image = np.zeros((101, 101, 3), np.uint8)
    image[:, 50] = 255  # a vertical line: at row y it moves left by 0.3 y
    sheared = augment.apply(image, "shear_x", 10, 1, "timm", BILINEAR)
    line = np.where(sheared[..., 0] == 128, 0, sheared[..., 0]).argmax(axis=1)  # 128: from outside
    assert np.abs(line - (50 - 0.3 * np.arange(101))).max() <= 1


def test_blip_leaves_colours_alone():
    names = set(augment.POLICIES["blip"][0])
    assert not names & {"colour", "invert", "solarize", "solarize_add", "posterize", "contrast"}
    assert len(names) == 10
    assert len(augment.POLICIES["timm"][0]) == len(augment.POLICIES["timm_increasing"][0]) == 15


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((2, 9, "vit"), "unknown RandAugment policy 'vit'"),
        ((-1, 9, "timm"), "-1 layers"),
        ((2, 11, "timm"), "magnitude=11"),
        ((2, float("nan"), "timm"), "magnitude=nan"),
    ],
)
def test_what_is_no_rand_augment_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        augment.rand_augment(noise(), np.random.default_rng(0), *fields)


def test_jitter_is_deterministic_and_each_range_does_its_part():
    image = ramp()
    ranges = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    still = colour_jitter.colour_jitter(image, np.random.default_rng(0), **ranges)
    np.testing.assert_array_equal(still, image)
    for name in ranges:
        one = {**ranges, name: 0.4}
        first, again = (
            colour_jitter.colour_jitter(image, np.random.default_rng(3), **one) for _ in range(2)
        )
        np.testing.assert_array_equal(first, again)
        assert (first != image).any(), name


def test_brightness_stays_within_its_range():
    image = np.full((4, 4, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    means = [colour_jitter.colour_jitter(image, rng, 0.4, 0.0, 0.0, 0.0).mean() for _ in range(200)]
    assert 59 <= min(means) < 65
    assert 135 < max(means) <= 140


def test_a_third_of_the_circle_makes_red_green():
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    for turn, expected in ((1 / 3, (0, 255, 0)), (-1 / 3, (0, 0, 255)), (0.5, (0, 255, 255))):
        turned = np.asarray(colour_jitter.turn_hue(red, turn)).astype(int)
        assert np.abs(turned - expected).max() <= 6, turn  # the circle has 256 steps


def test_greyscale_is_luma_in_three_channels():
    image = noise()
    grey = colour_jitter.greyscale(image)
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - luma[..., None]).max() <= 1
    assert (grey[..., 0] == grey[..., 2]).all()


def test_blur_keeps_the_mean_and_spreads_by_sigma():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    image[18:23, 18:23] = 255
    blurred = colour_jitter.gaussian_blur(image, np.random.default_rng(0), (2.0, 2.0)).astype(float)
    assert abs(blurred.sum() / image.sum() - 1) < 0.05
    share = blurred[..., 0] / blurred[..., 0].sum()
    columns = np.arange(41) - 20
    variance = (share.sum(axis=0) * columns**2).sum()
    assert abs(variance - (2.0 + 4.0)) < 0.6  # the square's own, 2, and sigma squared


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i, r: colour_jitter.colour_jitter(i, r, brightness=-1), "brightness=-1"),
        (lambda i, r: colour_jitter.colour_jitter(i, r, hue=0.6), "hue=0.6"),
        (lambda i, r: colour_jitter.gaussian_blur(i, r, (2.0, 1.0)), "the smaller one first"),
    ],
)
def test_impossible_ranges_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call(noise(), np.random.default_rng(0))


@pytest.mark.parametrize(
    "caption",
    [
        "a dog on the left of a man",
        "The RIGHT hand holds a cup .",
        "the leftmost of three cars",
        "a left-handed batter",
        "a car turns rightward",
        "it spins counterclockwise",
        "turn right, now",
    ],
)
def test_captions_that_name_a_side(caption):
    assert augment.mentions_sides(caption)


@pytest.mark.parametrize(
    "caption", ["a bright light", "leftovers on a plate", "an upright piano", "a clockwork toy", ""]
)
def test_captions_that_only_look_like_it(caption):
    assert not augment.mentions_sides(caption)
