"""The dual encoder, and the image tower it shares with CoCa."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.models.dual_encoder import Model
from capjax.models.vit import sincos2d, to_patches
from capjax.special_tokens import BOS_ID, EOS_ID, PAD_ID


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_embeddings_are_unit_vectors_of_each_row_alone(stem):
    model = Model(11, 6, 32, patch_size=8, stem=stem)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    tokens = np.array([[BOS_ID, 5, EOS_ID, PAD_ID, PAD_ID, PAD_ID], [BOS_ID, 5, 6, 7, 8, EOS_ID],
                       [BOS_ID, 9, 9, EOS_ID, PAD_ID, PAD_ID]], np.int32)  # fmt: skip
    params = jax.jit(model.init)(jax.random.key(0), image, tokens)
    pictures, texts = jax.jit(model.apply)(params, image, tokens)
    for embedded in (pictures, texts):
        np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)
        assert np.abs(embedded[0] - embedded[1]).max() > 1e-3
    swapped = jax.jit(model.apply)(params, image[::-1], tokens[::-1])
    np.testing.assert_allclose(swapped[0][::-1], pictures, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(swapped[1][::-1], texts, rtol=1e-4, atol=1e-5)


def test_patches_are_in_reading_order():
    image = jnp.arange(4 * 6 * 3).reshape(1, 4, 6, 3)
    patches = to_patches(image, 2)
    assert patches.shape == (1, 6, 12)
    np.testing.assert_array_equal(patches[0, 1], image[0, :2, 2:4].ravel())
    np.testing.assert_array_equal(patches[0, 3], image[0, 2:, :2].ravel())


def test_positions_tell_rows_and_columns_apart():
    table = sincos2d(3, 4, 16)[0]
    assert table.shape == (12, 16)
    assert len(np.unique(table.round(6), axis=0)) == 12
    np.testing.assert_array_equal(table[0, 8:], table[1, 8:])  # one row: its half is the same
    np.testing.assert_array_equal(table[0, :8], table[4, :8])  # one column
    with pytest.raises(ValueError, match="divisible by 4"):
        sincos2d(2, 2, 6)


def test_a_conv_stem_needs_a_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        Model(11, 6, 36, patch_size=12, stem="conv").init(
            jax.random.key(0), jnp.zeros((1, 36, 36, 3), jnp.uint8), jnp.zeros((1, 6), jnp.int32)
        )
