"""SigLIP: parity with the public implementation, published sizes, what a text reads, misuse."""

import functools

import jax
import numpy as np
import peer_cases
import pytest
from two_towers import check_parity, count, first, inputs_of, params_of, run, shapes_of

from capjax.errors import UserError
from capjax.models import siglip
from capjax.weights import siglip as names

TINY = dict(patch_size=8, layers=1, width=32, heads=2, mlp_dim=64)
TOKENS = np.array([[1, 5, 9, 2, 0, 0], [1, 7, 8, 8, 4, 2]], np.int32)


def tiny(**fields):
    return siglip.Model(20, 6, 16, overrides=TINY, **fields)


@pytest.mark.parametrize("case", peer_cases.load("siglip"), ids=["width 64", "width 36"])
def test_it_gives_what_transformers_gives(case):
    check_parity(siglip.Model(**case["model"]), names.TABLE, names.UNREAD, case)


# The modules of transformers with the published configurations.
@pytest.mark.parametrize(
    ("variant", "expected"), [("ViT-B/16", 203_155_970), ("ViT-So400m/14", 877_415_602)]
)
def test_published_sizes(variant, expected):
    assert count(shapes_of(siglip.published(variant))) == expected


def test_scale_and_bias_start_where_the_paper_starts_them():
    scale, bias = first(tiny(), ("logit_scale",), ("logit_bias",))
    assert float(scale) == pytest.approx(np.log(10))
    assert float(bias) == -10


def test_every_token_is_read_padding_too():
    model = tiny()
    params = params_of(model)
    before = run(model, "embed_text", params, TOKENS)
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1, rtol=1e-5)
    for place in (1, 4):
        other = TOKENS.copy()
        other[0, place] = 13
        changed = np.abs(run(model, "embed_text", params, other) - before).max(1)
        assert changed[0] > 1e-3
        assert changed[1] < 1e-6


def test_dropout_acts_in_training_alone():
    model = tiny(dropout=0.5)
    params = params_of(model)
    image = peer_cases.picture((2, 16, 16, 3))
    for method, value in (("embed_image", image), ("embed_text", TOKENS)):
        once = run(model, method, params, value, True, rng=jax.random.key(1))
        again = run(model, method, params, value, True, rng=jax.random.key(2))
        assert np.abs(once - again).max() > 1e-3
        np.testing.assert_allclose(
            run(model, method, params, value), run(tiny(), method, params, value), atol=1e-6
        )


def test_misuse_is_named():
    model = tiny()
    embed = functools.partial(model.apply, {"params": shapes_of(model)}, method="embed_text")
    with pytest.raises(UserError, match="padded to its max_length=6, not rows of 5 tokens"):
        jax.eval_shape(lambda: embed(TOKENS[:, :5]))
    for fields, message in (
        (dict(variant="ViT-H/14"), "unknown SigLIP variant 'ViT-H/14': choose one of ViT-B/16"),
        (dict(overrides=TINY | {"patch_size": 7}), "patch_size=7 does not divide image_size=16"),
        (dict(overrides={"depth": 1}), "unknown field 'depth' in overrides"),
    ):
        model = siglip.Model(20, 6, 16, **{"overrides": TINY} | fields)
        with pytest.raises(UserError, match=message):
            jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))
