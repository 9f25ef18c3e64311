"""A captioner put together from two models: what it computes, and how it starts from their runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax import config as config_lib
from capjax.decode.greedy import greedy
from capjax.errors import UserError
from capjax.models import image_encoder, language_model
from capjax.models.captioner import Model
from capjax.models.lora import make, merged
from capjax.tasks import caption

VOCABULARY, LENGTH, SIDE = 19, 9, 16
IMAGE = dict(
    name="capjax.models.image_encoder",
    variant="ViT-Ti/16",
    overrides=dict(layers=1, width=24, heads=2, mlp_dim=48, patch_size=8),
)
TEXT = dict(variant="tiny", overrides=dict(layers=2, width=32, heads=4, mlp_dim=64))
ROTARY = dict(
    variant="stories260k", overrides=dict(layers=2, width=32, heads=4, kv_heads=2, mlp_dim=64)
)


def model_of(connector="prefix", queries=0, text=TEXT, **fields):
    return Model(VOCABULARY, LENGTH, SIDE, IMAGE, text, connector, queries, **fields)


def inputs(batch=3):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (batch, SIDE, SIDE, 3), np.uint8)
    tokens = rng.integers(4, VOCABULARY, (batch, LENGTH)).astype(np.int32)
    tokens[:, 0], tokens[:, -1] = 1, 2
    return image, tokens


def drawn(model):
    """Parameters none of which is zero: a cross-attention at its start would not be seen."""
    params = jax.jit(caption.Task(model=model).init)(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.map(jnp.add, params, tree.unflatten(noise))


KINDS = [("prefix", 0, TEXT), ("prefix", 3, ROTARY), ("cross", 0, TEXT), ("cross", 0, ROTARY)]


@pytest.mark.parametrize(("connector", "queries", "text"), KINDS)
def test_steps_give_the_logits_of_the_whole_caption(connector, queries, text):
    model = model_of(connector, queries, text)
    params, (image, tokens) = drawn(model), inputs()

    @jax.jit
    def both(params):
        def forward(model):
            features = model.encode_image(image)
            whole = model.caption_logits(tokens[:, :-1], features.context)
            state, steps = model.start_decoding(features.context), []
            for position in range(LENGTH - 1):
                logits, state = model.decode_step(tokens[:, position], jnp.int32(position), state)
                steps.append(logits)
            blank = model.caption_logits(tokens[:, :-1], jnp.zeros_like(features.context))
            return whole, jnp.stack(steps, 1), blank

        return model.apply({"params": params}, method=forward)

    whole, steps, blank = both(params)
    np.testing.assert_allclose(steps, whole, atol=2e-5)
    assert np.abs(whole - blank).max() > 0.01  # the picture counts


@pytest.mark.parametrize("connector", ["prefix", "cross"])
def test_guidance_speaks_from_the_model_without_a_picture(connector):
    model = model_of(connector)
    params, (image, _) = drawn(model), inputs()
    context = model.apply({"params": params}, image, method="encode_image").context
    blind = greedy(model, params, context, 0.0)
    zeros = greedy(model, params, jnp.zeros_like(context), 1.0)
    np.testing.assert_array_equal(blind.tokens, zeros.tokens)


def test_cross_attention_changes_nothing_at_first():
    model = model_of("cross")
    image, tokens = inputs()
    params = jax.jit(caption.Task(model=model).init)(jax.random.key(0))
    alone = language_model.Model(VOCABULARY, LENGTH, **TEXT)
    known = {"language_model": _without(params["language_model"], "cross")}
    expected = alone.apply({"params": known}, tokens)
    _, logits = model.apply({"params": params}, image, tokens)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def _without(tree, part):
    return {
        k: _without(v, part) if isinstance(v, dict) else v for k, v in tree.items() if part not in k
    }


def test_lora_starts_at_nothing_and_can_be_merged():
    layers = ("query", "key", "value", "out", "mlp_in", "mlp_gate", "mlp_out")
    lora = dict(rank=2, alpha=6.0, layers=layers)
    plain, adapted = model_of(text=ROTARY), model_of(text=ROTARY | {"lora": lora})
    image, tokens = inputs()
    params = jax.jit(caption.Task(model=adapted).init)(jax.random.key(0))
    found = [name for name in map(jax.tree_util.keystr, _paths(params)) if "_lora" in name]
    assert len(found) == 2 * 2 * len(layers)  # blocks, down and up
    run = jax.jit(lambda model, p: model.apply({"params": p}, image, tokens)[1], static_argnums=0)
    before = run(plain, merged(params, make(lora)))
    np.testing.assert_allclose(run(adapted, params), before, atol=1e-5)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: x + 0.1 if "'up'" in jax.tree_util.keystr(path) else x, params
    )
    after = run(adapted, params)
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_allclose(run(plain, merged(params, make(lora))), after, atol=2e-5)


def _paths(tree):
    return [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(connector="glue"), "connector='glue' must be one of prefix, cross"),
        (dict(text=TEXT | {"lora": {"rank": 0}}), "rank of 1 or more"),
        (dict(text=TEXT | {"lora": {"layers": ("head",)}}), "layers among query"),
        (dict(text=TEXT | {"lora": {"ranks": 3}}), "lora has the fields alpha, layers, rank"),
        (dict(text=dict(variant="gpt5")), "unknown language model 'gpt5'"),
    ],
)
def test_options_that_cannot_be_are_refused(fields, message):
    model = model_of(**fields)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(caption.Task(model=model).init, jax.random.key(0))


def test_an_image_encoder_must_have_a_tower():
    model = Model(VOCABULARY, LENGTH, SIDE, dict(IMAGE, name="capjax.models.bert"), TEXT)
    with pytest.raises(UserError, match="offers no image_tower"):
        jax.eval_shape(caption.Task(model=model).init, jax.random.key(0))


def test_the_image_tower_is_the_encoders(tmp_path):
    """What an encoder's run has under `image_tower` fits: same names, shapes and numbers."""
    encoder = config_lib.instantiate(config_lib.as_config(IMAGE), "Model", image_size=SIDE)
    image, tokens = inputs()
    assert isinstance(encoder, image_encoder.Model)
    params = drawn(model_of())
    alone = encoder.apply({"params": {"image_tower": params["image_tower"]}}, image)[0].context
    tower = model_of().apply(
        {"params": params}, image, method=lambda model, image: model.image_tower(image)
    )
    np.testing.assert_array_equal(alone, tower)
    del tokens
