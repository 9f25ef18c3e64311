"""Kernels that lie the other way round write what those of the model write."""

import captions_until_killed
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_params
from flax.errors import ScopeParamNotFoundError
from flax.traverse_util import flatten_dict

from capjax.decode.bulk import on_all_devices
from capjax.decode.captioner import encode_image
from capjax.decode.options import Options
from capjax.decode.search import search
from capjax.errors import UserError
from capjax.models import captioner, int8, language_model, turned

IMAGE = dict(
    name="capjax.models.image_encoder",
    variant="ViT-Ti/16",
    overrides=dict(layers=1, width=24, heads=2, mlp_dim=48, patch_size=8),
)
TEXT = dict(variant="tiny", overrides=dict(layers=1, width=32, heads=4, mlp_dim=64))


def made(kind):
    """A CoCa, whose head is a kernel; a captioner whose table of words writes."""
    if kind == "coca":
        one = captions_until_killed.captioner()
        return one.model, one.params
    model = captioner.Model(48, 10, 16, IMAGE, TEXT, "cross", 0)
    return model, random_params.draw(model, 0.2)


@pytest.mark.parametrize("kind", ["coca", "captioner"])
def test_the_same_captions_and_logits(kind):
    """On the tests' eight devices, in steps of few rows and of more than MOST_ROWS."""
    model, params = made(kind)
    quick, other = turned.turn(model, on_all_devices(params))
    image = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    for guidance, options in (
        (2.0, Options(keep_scores=True)),
        (1.0, Options(num_beams=turned.MOST_ROWS // 8 + 1, keep_scores=True)),
    ):
        ours, theirs = (
            search(m, p, encode_image(m, p, image).context, guidance, options)
            for m, p in ((quick, other), (model, params))
        )
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_allclose(ours.token_scores, theirs.token_scores, atol=1e-4)
    assert len(np.unique(theirs.tokens[:, 0], axis=0)) > 1


def test_what_a_step_reads_is_turned_and_nothing_else():
    model, params = made("coca")
    _, other = turned.turn(model, params)
    before, after = flatten_dict(params), flatten_dict(other)
    gone = {path for path in before if path not in after}
    assert {path[-1] for path in gone} == {"kernel"}
    assert {path[:-1] for path in gone} == {
        path[:-1] for path in after if path[-1] == "kernel_turned"
    }
    for path in gone:
        inputs = 2 if path[-2] == "out" else 1
        kernel = before[path].reshape(np.prod(before[path].shape[:inputs]), -1)
        np.testing.assert_array_equal(after[(*path[:-1], "kernel_turned")], kernel.T)
    names = {"/".join(path[:-1]) for path in gone}
    assert "caption_decoder/head" in names
    assert sum("mlp" in name for name in names) == 4  # of a block of words, and one with pictures
    assert not any("image_tower" in name for name in names)


def test_of_few_rows_the_weights_are_the_left_hand_side():
    """Which is what is read as it lies; XLA's own simplification would turn it back."""
    kernel = jnp.arange(40.0).reshape(8, 5)

    def left(rows):
        lowered = jax.jit(turned._product).lower(jnp.ones((rows, 5)), kernel)
        dots = [x for x in lowered.compile().as_text().splitlines() if " dot(" in x]
        (dot,) = dots or [lowered.compile().as_text()]
        return f"f32[8,{rows}]" in dot

    assert left(3)
    assert not left(turned.MOST_ROWS + 1)
    x = jax.random.normal(jax.random.key(0), (2, 3, 5))
    np.testing.assert_allclose(turned._product(x, kernel), x @ kernel.T, rtol=1e-5)


def test_what_cannot_be_turned_is_refused():
    model, params = made("coca")
    quick, other = turned.turn(model, params)
    with pytest.raises(ScopeParamNotFoundError, match="kernel"):
        model.apply({"params": other}, np.zeros((1, 64)), method="token_logits")
    with pytest.raises(UserError, match="the model's own, not 8-bit ones"):
        turned.turn(model, int8.quantise(model, params)[1])
    speaker = language_model.Model(48, 10, variant="tiny")
    with pytest.raises(UserError, match="writes no captions of pictures"):
        turned.turn(speaker, {})
    assert quick.max_length == model.max_length
