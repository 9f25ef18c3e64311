"""CoCa: shapes, what reaches the decoder, gradients, and cached decoding against the full pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.models.coca import Model, unit
from capjax.special_tokens import BOS_ID, EOS_ID, PAD_ID

VOCABULARY, LENGTH, SIDE = 23, 9, 16


# Two layers of text, so that a cache of one layer feeds the next; one of the rest compiles faster.
SHALLOW = dict(image_layers=1, unimodal_layers=2, multimodal_layers=2)


def build(variant="bottleneck", **kwargs):
    queries = 3 if variant == "attention_pooling" else 0
    return Model(
        VOCABULARY, LENGTH, SIDE, size_overrides=SHALLOW, variant=variant, caption_queries=queries,
        **kwargs,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(model, method, params, *inputs):
    """One of the model's methods, compiled once for all tests."""
    return model.apply({"params": params}, *inputs, method=method)


def batch_of(size, seed=0):
    """Random pictures, and captions of 1 to LENGTH - 2 words."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size, SIDE, SIDE, 3), np.uint8)
    tokens = np.full((size, LENGTH), PAD_ID, np.int32)
    for row in range(size):
        words = rng.integers(4, VOCABULARY, rng.integers(1, LENGTH - 1))
        tokens[row, : len(words) + 2] = [BOS_ID, *words, EOS_ID]
    return image, tokens


@pytest.fixture(scope="module", params=["bottleneck", "attention_pooling"])
def setup(request):
    model = build(request.param)
    image, tokens = batch_of(3)
    params = jax.jit(model.init)(jax.random.key(0), image, tokens)["params"]
    # Biases start at zero; random ones make the zeroed context's branch non-trivial.
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return model, jax.tree.unflatten(tree, noisy), image, tokens


def test_shapes_and_unit_length(setup):
    model, params, image, tokens = setup
    features, text, logits = run(model, "__call__", params, image, tokens)
    context_tokens = 3 if model.variant == "attention_pooling" else 1
    assert features.context.shape == (3, context_tokens, 64)
    assert logits.shape == (3, LENGTH - 1, VOCABULARY)
    np.testing.assert_allclose(np.linalg.norm(features.embedding, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(text, axis=-1), 1, rtol=1e-5)


def test_cached_decoding_equals_the_full_pass_at_every_position(setup):
    model, params, image, tokens = setup
    context = run(model, "encode_image", params, image).context
    words = run(model, "encode_text", params, tokens)[1]
    full = run(model, "caption_logits", params, words, context)
    state = run(model, "start_decoding", params, context)
    for position in range(LENGTH - 1):
        logits, state = run(model, "decode_step", params, tokens[:, position], position, state)
        np.testing.assert_allclose(logits, full[:, position], rtol=2e-5, atol=2e-5)


def test_a_word_sees_no_later_word_and_no_cls(setup):
    model, params, image, tokens = setup
    changed = tokens.copy()
    changed[:, 4:] = 5
    before = run(model, "__call__", params, image, tokens)[2]
    after = run(model, "__call__", params, image, changed)[2]
    np.testing.assert_allclose(before[:, :4], after[:, :4], rtol=1e-5, atol=1e-5)
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-3


def test_text_embedding_ignores_the_amount_of_padding(setup):
    model, params, _, tokens = setup
    longer = np.pad(tokens[:, : LENGTH - 2], ((0, 0), (0, 2)))
    longer[:, LENGTH - 4 :] = PAD_ID
    longer[:, LENGTH - 4] = np.where(longer[:, LENGTH - 5] > EOS_ID, EOS_ID, PAD_ID)
    shorter = longer[:, : LENGTH - 2]
    np.testing.assert_allclose(
        run(model, "embed_text", params, longer),
        run(model, "embed_text", params, shorter),
        rtol=1e-5,
        atol=1e-6,
    )


def test_bottleneck_decoder_sees_the_embedding_alone():
    """What captions see of a picture is the one vector of the contrastive space, not normalised."""
    model = build()
    image, tokens = batch_of(2)
    params = jax.jit(model.init)(jax.random.key(0), image, tokens)["params"]
    features = run(model, "encode_image", params, image)
    assert features.context.shape == (2, 1, 64)
    normalised = run(build(normalize_bottleneck=True), "encode_image", params, image)
    np.testing.assert_allclose(normalised.context[:, 0], features.embedding, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        unit(features.context[:, 0]), features.embedding, rtol=1e-5, atol=1e-6
    )


def test_zeroed_context_is_blind_to_the_picture(setup):
    model, params, image, tokens = setup
    other, _ = batch_of(3, seed=9)

    def blind(pictures):
        context = run(model, "encode_image", params, pictures).context
        words = run(model, "encode_text", params, tokens)[1]
        return run(model, "caption_logits", params, words, jnp.zeros_like(context))

    np.testing.assert_array_equal(blind(image), blind(other))


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_changes_no_gradient(remat):
    image, tokens = batch_of(2)
    plain, again = build(), build(remat=remat)
    params = jax.jit(plain.init)(jax.random.key(0), image, tokens)["params"]

    def loss(model):
        def value(p):
            features, text, logits = model.apply({"params": p}, image, tokens, train=True)
            return jnp.sum(logits**2) + jnp.sum(features.embedding * text)

        return jax.jit(jax.grad(value))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        loss(plain),
        loss(again),
    )


def test_bfloat16_computes_near_float32_with_float32_parameters():
    image, tokens = batch_of(2)
    half = build(dtype="bfloat16")
    params = jax.jit(half.init)(jax.random.key(0), image, tokens)["params"]
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    exact = run(build(), "__call__", params, image, tokens)[2]
    rough = run(half, "__call__", params, image, tokens)[2]
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(exact, rough, atol=0.05)
    assert np.abs(exact - rough).max() > 0


def test_misuse_is_named():
    image, tokens = batch_of(1)
    with pytest.raises(ValueError, match="unknown variant 'dense'"):
        build("dense").init(jax.random.key(0), image, tokens)
    with pytest.raises(ValueError, match="given as uint8"):
        build().init(jax.random.key(0), image.astype(np.float32), tokens)
    with pytest.raises(ValueError, match="do not fit image_size=16"):
        build().init(jax.random.key(0), image[:, :8], tokens)
