"""BLIP's matching model: what padding, the first token and the picture do to its two scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_towers import drawn, inputs_of, shapes_of

from capjax.errors import UserError
from capjax.evals.match_scorer import cosine, match_probability
from capjax.models.blip_matching import Model
from capjax.special_tokens import BOS_ID, EOS_ID, SpecialTokens

VOCABULARY, LENGTH, SIDE, ENC = 20, 35, 16, 19
SMALL = dict(
    image_layers=1, text_layers=1, image_width=32, text_width=16, text_heads=2,
    image_mlp_dim=32, text_mlp_dim=32, max_positions=LENGTH,
)  # fmt: skip
MODEL = Model(
    VOCABULARY, LENGTH, SIDE, "tiny", SMALL, 8, special_tokens=SpecialTokens(enc=ENC)
)  # fmt: skip
IMAGE = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


def rows(*texts, length=LENGTH):
    """BOS ids EOS and padding."""
    found = np.zeros((len(texts), length), np.int32)
    for row, ids in zip(found, texts, strict=True):
        row[: len(ids) + 2] = [BOS_ID, *ids, EOS_ID]
    return found


TEXTS = rows([4, 5, 6, 7], [8], [9, 4, 12, 13, 5, 6])


@pytest.fixture(scope="module")
def params():
    return drawn(shapes_of(MODEL))


@functools.partial(jax.jit, static_argnums=0)
def outputs(model, params, image, tokens):
    """(picture's and text's embeddings, logits)."""
    return model.apply({"params": params}, image, tokens)


def test_scores_are_shaped_and_read_the_picture(params):
    image, text, logits = outputs(MODEL, params, IMAGE, TEXTS)
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, rtol=1e-5)
    assert (logits.shape, logits.dtype) == ((3, 2), jnp.float32)
    _, same, other = outputs(MODEL, params, IMAGE[::-1], TEXTS)
    np.testing.assert_array_equal(same, text)  # the text alone knows of no picture
    assert np.abs(other - logits)[[0, 2]].min() > 1e-3
    np.testing.assert_allclose(other[1], logits[1], atol=1e-6)


def test_padding_changes_nothing(params):
    _, text, logits = outputs(MODEL, params, IMAGE, TEXTS)
    end = MODEL.special_tokens.until_end(TEXTS)
    noise = np.where(end, TEXTS, np.random.default_rng(1).integers(0, 19, TEXTS.shape))
    assert (noise != TEXTS).any(1).all()
    _, same_text, same = outputs(MODEL, params, IMAGE, noise)
    np.testing.assert_allclose(same_text, text, atol=1e-6)
    np.testing.assert_allclose(same, logits, atol=1e-6)
    _, same_text, same = outputs(MODEL, params, IMAGE, TEXTS[:, :8])
    np.testing.assert_allclose(same_text, text, atol=1e-6)
    np.testing.assert_allclose(same, logits, atol=1e-6)


def test_enc_stands_in_the_place_of_the_first_token_when_matching(params):
    _, text, logits = outputs(MODEL, params, IMAGE, TEXTS)
    begun = np.concatenate([np.full((3, 1), ENC), TEXTS[:, 1:]], 1).astype(np.int32)
    _, _, expected = outputs(MODEL, params, IMAGE, begun)
    _, same_text, found = outputs(MODEL.clone(match_token="enc"), params, IMAGE, TEXTS)
    np.testing.assert_allclose(same_text, text, atol=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - logits).max() > 1e-3


def test_two_logits_and_two_vectors_as_scores():
    assert float(match_probability(jnp.array([0.0, 2.0]))) == pytest.approx(0.8808, abs=5e-5)
    unit = np.array([[0.6, 0.8], [1.0, 0.0]])
    np.testing.assert_allclose(cosine(unit, unit), 1, rtol=1e-12)
    np.testing.assert_allclose(cosine(unit, -unit), -1, rtol=1e-12)
    np.testing.assert_allclose(cosine(unit, unit[::-1]), 0.6, rtol=1e-12)


def test_pictures_through_convolutions():
    shapes = shapes_of(MODEL.clone(overrides=SMALL | {"stem": "conv"}))["image_tower"]
    assert "stem" in shapes
    assert "patch_embedding" not in shapes
    assert shapes["positions"].shape == (1, 5, 32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(match_token="enc", special_tokens=SpecialTokens()), r"\[ENC\]: name it in tokenizer"),
        (dict(match_token="dec"), "match_token='dec' must be 'cls' or 'enc'"),
        (dict(max_length=36), "rows of 36 tokens exceed BLIP's max_positions=35"),
        (dict(variant="huge"), "unknown BLIP variant 'huge'"),
    ],
)
def test_mistakes_are_named(fields, message):
    model = MODEL.clone(**fields)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))
