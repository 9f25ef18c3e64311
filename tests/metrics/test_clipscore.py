"""CLIPScore and its variants on embeddings whose cosines are known."""

import numpy as np
import pytest

from capjax.errors import UserError
from capjax.metrics.clipscore import (
    clip_score,
    harmonic_mean,
    ref_clip_score,
    ref_only_clip_score,
)


def at_cosine(cosine: float) -> np.ndarray:
    """A vector of length 3 at this cosine with (1, 0)."""
    return 3 * np.array([cosine, np.sqrt(1 - cosine**2)])


def test_the_oracle_of_the_spec():
    image, caption = np.array([[2.0, 0.0]]), at_cosine(0.3)[None]
    assert clip_score(image, caption) == pytest.approx([0.75])
    # The caption's best reference is at cosine 0.9 with it: turned by arccos 0.9 from it.
    turn = np.arccos(0.3) - np.arccos(0.9)
    references = np.array([[np.cos(turn), np.sin(turn)], [-1.0, 0.0]])
    assert ref_only_clip_score(caption, [references]) == pytest.approx([0.9])
    assert ref_clip_score(image, caption, [references]) == pytest.approx([0.8181818], abs=1e-6)
    assert harmonic_mean(np.array(0.775), np.array(0.900)) == pytest.approx(0.8328, abs=1e-4)


def test_negative_cosines_count_as_zero():
    image, caption = np.array([[1.0, 0.0]]), at_cosine(-0.5)[None]
    references = [np.array([[1.0, 0.0], [1.0, -1.0]])]
    assert clip_score(image, caption) == 0
    assert ref_only_clip_score(caption, references) == 0
    assert ref_clip_score(image, caption, references) == 0  # and not 0 / 0


def test_one_value_an_image_whatever_the_scale_and_the_number_of_references():
    generator = np.random.default_rng(0)
    images, captions = generator.normal(size=(2, 5, 8))
    references = [generator.normal(size=(n, 8)) for n in (1, 2, 3, 4, 5)]
    values = ref_clip_score(images, captions, references)
    assert values.shape == (5,)
    assert ref_clip_score(7 * images, 0.1 * captions, references) == pytest.approx(values)
    padded = np.stack([np.resize(r, (5, 8)) for r in references])  # repeats change no maximum
    assert ref_clip_score(images, captions, padded) == pytest.approx(values)


def test_half_precision_embeddings_are_not_summed_in_half_precision():
    emb = np.full((1, 768), 12.0, np.float16)
    assert clip_score(emb, emb) == pytest.approx([2.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip_score(np.ones((2, 3)), np.ones((1, 3))), r"\(2, 3\).*\(1, 3\)"),
        (lambda: clip_score(np.zeros((1, 3)), np.ones((1, 3))), "image embedding at .* zero"),
        (lambda: clip_score(np.ones((1, 3)), np.full((1, 3), np.nan)), "caption .* not finite"),
        (lambda: ref_only_clip_score(np.ones((2, 3)), [np.ones((1, 3))]), "of 1 images"),
        (lambda: ref_only_clip_score(np.ones((1, 3)), [np.ones((0, 3))]), "references of image 0"),
        (lambda: ref_only_clip_score(np.ones((1, 3)), [np.ones((2, 4))]), "references of image 0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
