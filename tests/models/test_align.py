"""ALIGN: parity with the public implementation, published sizes, training, misuse."""

import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest
from two_towers import check_parity, count, first, inputs_of, params_of, run, shapes_of

from capjax.errors import UserError
from capjax.models import align
from capjax.models.batch_norm import COLLECTION
from capjax.weights import align as names

TINY = dict(image_width=0.25, image_depth=0.1, text_layers=1, text_width=32, text_heads=2)
TOKENS = np.array([[1, 5, 9, 2, 0, 0], [1, 7, 8, 8, 4, 2]], np.int32)


def tiny(**fields):
    return align.Model(20, 6, 32, **{"overrides": TINY} | fields)


@pytest.mark.parametrize("case", peer_cases.load("align"), ids=["side 64", "side 77"])
def test_it_gives_what_transformers_gives(case):
    model = align.Model(**case["model"])
    context = case["model"]["max_length"]
    assert len(case["tokens"][0]) <= context
    check_parity(model, names.TABLE, names.UNREAD, case)


def test_published_sizes():
    """The public base model: 172,117,841 with BERT's pooler, which is not read."""
    shapes = shapes_of(align.Model(30_522, 512, 289, "B7-base"))
    assert count(shapes) == 172_117_841 - 768 * 769
    assert shapes["text_projection"]["kernel"].shape == (768, 640)
    widest = shapes_of(align.Model(30_522, 64, 289, "L2-large"))
    assert widest["text_projection"]["kernel"].shape == (1024, 1376)


def test_the_temperature_starts_at_one():
    assert float(*first(tiny(), ("logit_scale",))) == 0


def test_both_towers_can_be_projected_to_a_width_of_their_own():
    model = tiny(embedding_dim=24)
    params = params_of(model)
    image = run(model, "embed_image", params, peer_cases.picture((2, 32, 32, 3)))
    text = run(model, "embed_text", params, TOKENS)
    assert image.shape == text.shape == (2, 24)
    for embedded in (image, text):
        np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)


def test_padding_changes_nothing():
    model = tiny()
    params = params_of(model)
    before = run(model, "embed_text", params, TOKENS)
    other = TOKENS.copy()
    other[0, 4:] = 11
    np.testing.assert_allclose(run(model, "embed_text", params, other), before, atol=1e-6)
    np.testing.assert_allclose(
        run(model, "embed_text", params, TOKENS[:1, :4]), before[:1], atol=1e-6
    )


def test_groups_of_pictures_do_not_see_each_other_in_training():
    model = tiny(batch_norm_group=2, drop_connect=0.0, dropout=0.0)
    params = params_of(model)
    image = peer_cases.picture((4, 32, 32, 3))

    @jax.jit
    def train(image):
        return model.apply(
            {"params": params}, image, True, mutable=[COLLECTION], method="embed_image"
        )

    before, state = train(image)
    assert jax.tree.structure(state[COLLECTION]) != jax.tree.structure({})
    after, _ = train(np.concatenate([image[:2], 255 - image[2:]]))
    np.testing.assert_allclose(before[:2], after[:2], atol=1e-5)
    assert np.abs(before[2:] - after[2:]).max() > 1e-3


def test_misuse_is_named():
    for fields, message in (
        (dict(variant="B6-base"), "unknown ALIGN variant 'B6-base': choose one of B3-mini, B5"),
        (dict(overrides={"width": 1}), "unknown field 'width' in overrides: choose from image_d"),
    ):
        model = tiny(**fields)
        with pytest.raises(UserError, match=message):
            jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))
    with pytest.raises(UserError, match="groups of 16 needs a batch that is a multiple"):
        jax.eval_shape(
            lambda p, x: tiny().apply(
                {"params": p}, x, True, mutable=[COLLECTION], method="embed_image"
            ),
            params_of(tiny()),
            jnp.zeros((3, 32, 32, 3), jnp.uint8),
        )
