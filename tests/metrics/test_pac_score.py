"""PAC-S and CLIP-Image-Score on embeddings whose cosines are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capjax.errors import UserError
from capjax.metrics.clip_image_score import (
    calibrated,
    clip_image_score,
    drawing_cosines,
    others_score,
)
from capjax.metrics.clipscore import clip_score, image_caption_cosine
from capjax.metrics.pac_score import pac_score, ref_pac_score


def at_angle(*degrees: float) -> np.ndarray:
    """Vectors of length 2 at these angles with (1, 0)."""
    radians = np.radians(degrees)
    return 2 * np.stack([np.cos(radians), np.sin(radians)], axis=-1)


def test_pac_score_by_hand():
    images, captions = at_angle(0, 0, 0), at_angle(60, 90, 120)
    assert pac_score(images, captions) == pytest.approx([1.0, 0.0, 0.0])
    assert image_caption_cosine(images, captions) == pytest.approx([0.5, 0.0, -0.5])
    # The nearest reference of the first caption is at 30 degrees from it: 2ab / (a + b).
    references = [at_angle(90, 200), at_angle(90), at_angle(300)]
    nearest = np.sqrt(3) / 2
    assert ref_pac_score(images, captions, references) == pytest.approx(
        [2 * nearest / (1 + nearest), 0.0, 0.0], abs=1e-12
    )


@given(st.integers(0, 10_000))
def test_pac_score_is_clip_score_with_another_weight(seed):
    images, captions = np.random.default_rng(seed).normal(size=(2, 4, 5))
    values = pac_score(images, captions)
    assert values == pytest.approx(clip_score(images, captions) * 0.8)
    assert ((values >= 0) & (values <= 2)).all()
    exact = ref_pac_score(images, captions, captions[:, None])  # b is 1
    assert exact == pytest.approx(2 * values / (values + 1))


def test_image_score_by_hand():
    drawn = np.array([[0.6, 0.8], [5.0, 0.0]])
    assert clip_image_score(np.array([[3.0, 0.0], [1.0, 0.0]]), drawn) == pytest.approx([0.6, 1.0])
    assert clip_image_score(-drawn, drawn) == pytest.approx([-1, -1])  # not cut at zero


def test_several_drawings_and_several_views_are_averaged():
    image = at_angle(0)
    drawn = at_angle(0, 60, 90)[None]
    assert drawing_cosines(image, drawn) == pytest.approx(np.array([[1, 0.5, 0]]))
    assert clip_image_score(image, drawn) == pytest.approx([0.5])
    views = at_angle(0, 60, 180)[None]  # a view is compared with the same view
    assert clip_image_score(views, drawn) == pytest.approx([2 / 3])


@given(st.integers(0, 10_000), st.sampled_from([None, 1, 3]))
def test_the_floor_is_the_mean_over_all_pairs_of_others(seed, views):
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(5, 4))
    drawn = generator.normal(size=(5, 4) if views is None else (5, views, 4))
    expected = [
        np.mean([clip_image_score(images[i : i + 1], drawn[j : j + 1]) for j in range(5) if j != i])
        for i in range(5)
    ]
    assert others_score(images, drawn) == pytest.approx(expected)


def test_calibration_puts_the_floor_at_0_and_the_ceiling_at_1():
    assert calibrated(np.array([0.6, 0.7, 0.9]), 0.6, 0.8) == pytest.approx([0.0, 0.5, 1.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pac_score(np.ones((2, 3)), np.ones((1, 3))), r"\(2, 3\).*\(1, 3\)"),
        (lambda: pac_score(np.ones((1, 3)), np.zeros((1, 3))), "caption embedding .* zero"),
        (lambda: ref_pac_score(np.ones((1, 3)), np.ones((1, 3)), []), "of 0 images"),
        (lambda: clip_image_score(np.ones((2, 3)), np.ones((1, 3))), "do not match"),
        (lambda: clip_image_score(np.ones((1, 2, 3)), np.ones((1, 3))), "do not match"),
        (lambda: clip_image_score(np.ones(3), np.ones(3)), "do not match"),
        (lambda: clip_image_score(np.ones((1, 3)), np.zeros((1, 3))), "drawn picture's .* zero"),
        (lambda: others_score(np.ones((1, 3)), np.ones((1, 3))), "at least two"),
        (lambda: calibrated(np.ones(1), 0.5, 0.5), "not above the floor"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
