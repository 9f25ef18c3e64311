"""CLIP: parity with the public implementation, published sizes, masks, prefixes, misuse."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest
from two_towers import check_parity, count, first, inputs_of, params_of, run, shapes_of

from capjax.errors import UserError
from capjax.models import clip
from capjax.models.batch_norm import COLLECTION
from capjax.special_tokens import SpecialTokens
from capjax.weights import clip as names
from capjax.weights.table import to_params

TINY = dict(
    image_layers=1,
    image_width=32,
    image_heads=2,
    patch_size=8,
    text_layers=1,
    text_width=32,
    text_heads=2,
    embedding_dim=16,
)


def tiny(**fields):
    return clip.Model(20, 7, 16, "ViT-B/32", **{"overrides": TINY} | fields)


TOKENS = np.array([[1, 5, 9, 2, 0, 0, 0], [1, 7, 8, 8, 4, 6, 2], [1, 2, 0, 0, 0, 0, 0]], np.int32)


@pytest.mark.parametrize("case", peer_cases.load("clip_vit"), ids=["width 64", "width 48"])
def test_a_vit_gives_what_openclip_gives(case):
    eos = case["model"]["vocab_size"] - 1
    model = clip.Model(**case["model"], special_tokens=SpecialTokens(eos=eos))
    check_parity(model, names.VIT, names.UNREAD, case)


# CLIP's specification and, for the ResNets, the modules of OpenCLIP.
@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("ViT-B/32", 151_277_313),
        ("ViT-B/16", 149_620_737),
        ("ViT-L/14", 427_616_513),
        ("ViT-L/14@336", 427_944_193),
        ("RN50", 102_007_137),
        ("RN101", 119_688_033),
    ],
)
def test_published_sizes(variant, expected):
    model = clip.published(variant)
    shapes = shapes_of(model)
    assert count(shapes) == expected
    if clip.VARIANTS[variant].text_width == clip.VARIANTS[variant].embedding_dim == 512:
        assert count((shapes["text_tower"], shapes["text_projection"])) == 63_428_096


def test_initialisation_is_the_paper_s():
    model = clip.Model(300, 9, 16, overrides=TINY | dict(text_width=128, text_layers=2))
    paths = ("logit_scale",), ("text_tower",), ("text_projection", "kernel")
    scale, text, projection = first(model, *paths)
    assert float(scale) == pytest.approx(np.log(1 / 0.07))
    block = text["stack"]["blocks_0"]
    for kernel, std in (
        (text["embedding"]["embedding"], 0.02),
        (text["positions"], 0.01),
        (block["self_attention"]["query"]["kernel"], 128**-0.5),
        (block["self_attention"]["out"]["kernel"], (128 * 4) ** -0.5),
        (block["mlp_in"]["kernel"], 256**-0.5),
        (block["mlp_out"]["kernel"], (128 * 4) ** -0.5),
        (projection, 128**-0.5),
    ):
        assert np.std(kernel) == pytest.approx(std, rel=0.06)


def test_padding_and_what_follows_the_end_change_nothing():
    model = tiny()
    params = params_of(model)
    embedded = run(model, "embed_text", params, TOKENS)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)
    other = TOKENS.copy()
    other[0, 4:] = 11
    np.testing.assert_allclose(run(model, "embed_text", params, other), embedded, atol=1e-6)
    cut = run(model, "embed_text", params, TOKENS[:1, :4])
    np.testing.assert_allclose(cut, embedded[:1], atol=1e-6)
    other = TOKENS.copy()
    other[0, 1] = 11
    changed = np.abs(run(model, "embed_text", params, other) - embedded).max(1)
    assert changed[0] > 1e-3
    assert changed[1:].max() < 1e-6


def test_the_end_is_the_first_eos_wherever_the_highest_id_is():
    high, low = tiny(special_tokens=SpecialTokens(eos=19)), tiny()
    params = params_of(low)
    rows = np.where(TOKENS == 2, 19, TOKENS)
    swapped = jax.tree.map(jnp.copy, params)
    table = swapped["text_tower"]["embedding"]["embedding"]
    swapped["text_tower"]["embedding"]["embedding"] = table.at[19].set(table[2])
    np.testing.assert_allclose(
        run(high, "embed_text", swapped, rows), run(low, "embed_text", params, TOKENS), atol=1e-6
    )


def test_dropout_acts_in_training_alone():
    model = tiny(dropout=0.5)
    params = params_of(model)
    image = peer_cases.picture((3, 16, 16, 3))
    for method, value in (("embed_image", image), ("embed_text", TOKENS)):
        once = run(model, method, params, value, True, rng=jax.random.key(1))
        again = run(model, method, params, value, True, rng=jax.random.key(2))
        assert np.abs(once - again).max() > 1e-3
        tested = run(model, method, params, value)
        np.testing.assert_allclose(tested, run(tiny(), method, params, value), atol=1e-6)


def test_prefixes_tell_texts_apart_and_keep_their_ends():
    model = tiny(prefixes=("cls", "cap"), test_prefix="cap")
    params = params_of(model)
    tower = params["text_tower"]
    assert tower["positions"].shape == (8, 32)
    as_cap = run(model, "embed_text", params, TOKENS)
    as_cls = run(model, "embed_text", params, TOKENS, prefix="cls")
    assert np.abs(as_cap - as_cls).max() > 1e-4
    mixed = run(model, "embed_text", params, TOKENS, True, jnp.array([1, 0, 1]))
    expected = np.stack([as_cap[0], as_cls[1], as_cap[2]])
    np.testing.assert_allclose(mixed, expected, atol=1e-6)
    tied = params | {"text_tower": tower | {"prefix_cls": tower["prefix_cap"]}}
    np.testing.assert_array_equal(run(model, "embed_text", tied, TOKENS, prefix="cls"), as_cap)
    # A state read one token too early would not have seen EOS.
    table = tower["embedding"]["embedding"]
    changed = np.where(np.arange(20)[:, None] == 2, table[3], table)
    other = params | {"text_tower": tower | {"embedding": {"embedding": changed}}}
    assert np.abs(run(model, "embed_text", other, TOKENS) - as_cap).max(1).min() > 1e-3


def test_a_prefix_that_no_text_has_gets_no_gradient_and_no_decay():
    model = tiny(prefixes=("cls", "cap"), test_prefix="cap")
    params = params_of(model)

    def loss(p):
        embedded = model.apply({"params": p}, TOKENS, True, jnp.ones(3, int), method="embed_text")
        return jnp.sum(embedded[0] * embedded[1])

    slopes = jax.jit(jax.grad(loss))(params)["text_tower"]
    assert not slopes["prefix_cls"].any()
    assert slopes["prefix_cap"].any()
    assert slopes["prefix_cls"].ndim == 1  # weight decay spares vectors


def test_the_loop_can_make_and_copy_every_model():
    assert list(inspect.signature(clip.Model).parameters)[:3] == [
        "vocab_size",
        "max_length",
        "image_size",
    ]
    model = tiny(overrides=TINY | {"image_layers": 2})
    assert hash(model.clone(special_tokens=SpecialTokens(eos=19))) != hash(model)
    assert COLLECTION not in jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(variant="ViT-B/8"), "unknown CLIP variant 'ViT-B/8': choose one of RN50, RN101"),
        (dict(overrides={"depth": 2}), "unknown field 'depth' in overrides: choose from"),
        (dict(overrides=TINY | {"patch_size": 6}), "patch_size=6 does not divide image_size=16"),
        (dict(overrides=TINY | {"activation": "relu6"}), "unknown activation 'relu6': choose one"),
        (dict(prefixes=("cls",)), "test_prefix='' is not among prefixes=.'cls',.: name"),
    ],
)
def test_misuse_is_named(fields, message):
    model = clip.Model(20, 7, 16, **{"overrides": TINY} | fields)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))


def test_misuse_of_texts_is_named():
    model, longer = tiny(), np.zeros((1, 8), np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))
    embed = functools.partial(model.apply, method="embed_text")
    with pytest.raises(UserError, match="texts of 8 tokens exceed the model's max_length=7"):
        jax.eval_shape(embed, shapes, longer)
    with pytest.raises(UserError, match="this model has no prefixes, but 'cap' was given"):
        jax.eval_shape(functools.partial(embed, prefix="cap"), shapes, TOKENS)
    model = tiny(prefixes=("cls", "cap"), test_prefix="cap")
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))
    embed = functools.partial(model.apply, method="embed_text")
    with pytest.raises(UserError, match="begin with one of the prefixes cls, cap, and none was"):
        jax.eval_shape(functools.partial(embed, train=True), shapes, TOKENS)
    with pytest.raises(UserError, match="'web' is none of them"):
        jax.eval_shape(functools.partial(embed, prefix="web"), shapes, TOKENS)


def test_weights_of_another_variant_are_named():
    case = peer_cases.load("clip_vit")[0]
    tensors = peer_cases.tensors(case)

    def load(table=names.VIT, change=(), **fields):
        model = clip.Model(**case["model"] | fields)
        return to_params(table, shapes_of(model), tensors | dict(change), names.UNREAD)

    with pytest.raises(UserError, match=r"token_embedding.weight' of shape .40, 32. does not fit"):
        load(vocab_size=41)
    resnet = dict(image_layers=(1, 1, 1, 1), image_width=4, image_heads=2)
    with pytest.raises(UserError, match=r"no tensor 'visual\..*' for the parameter 'image_tower/"):
        load(names.RESNET, variant="RN50", overrides=resnet)
    with pytest.raises(UserError, match=r"no parameter for 1 of .* them 'visual.extra'"):
        load(change={"visual.extra": np.zeros(3)})
