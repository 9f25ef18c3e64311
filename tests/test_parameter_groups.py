"""Groups of parameters by regular expressions, and layer-wise decay on the names of our models."""

import jax
import jax.numpy as jnp
import pytest

from capjax import config as config_lib
from capjax.errors import UserError
from capjax.models import bert, coca, open_clip_coca, t5
from capjax.models.init import init
from capjax.parallel.sharding import named_leaves
from capjax.parameter_groups import (
    decayed,
    frozen,
    layer_factors,
    learning_rate_factors,
    weight_decay_factors,
)

PARAMS = {
    "dense": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)},
    "attention": {"bias": jnp.ones((2, 3))},
    "norm": {"scale": jnp.ones(4)},
}


def section(**changes):
    config = config_lib.base().optimizer
    config.update(changes)
    return config


def test_vectors_biases_and_scales_are_spared_weight_decay():
    expected = {
        "dense": {"kernel": True, "bias": False},
        "attention": {"bias": False},
        "norm": {"scale": False},
    }
    assert decayed(PARAMS) == expected
    assert weight_decay_factors(section(), PARAMS) == jax.tree.map(float, expected)


def test_the_first_expression_that_is_found_decides():
    config = section(
        weight_decays=(("bias", 1.0),),
        learning_rates=((r"^dense/bias$", 0.0), ("dense", 0.5)),
        frozen=("norm",),
    )
    assert named_leaves(weight_decay_factors(config, PARAMS)) == {
        "dense/kernel": 1.0, "dense/bias": 1.0, "attention/bias": 1.0, "norm/scale": 0.0
    }  # fmt: skip
    assert named_leaves(learning_rate_factors(config, PARAMS)) == {
        "dense/kernel": 0.5, "dense/bias": 0.0, "attention/bias": 1.0, "norm/scale": 1.0
    }  # fmt: skip
    assert [name for name, f in named_leaves(frozen(config, PARAMS)).items() if f] == ["norm/scale"]


@pytest.mark.parametrize(
    ("changes", "function", "message"),
    [
        ({"learning_rates": (("dens$", 1.0),)}, learning_rate_factors, "no parameter matches 'den"),
        ({"learning_rates": (("(", 1.0),)}, learning_rate_factors, r"'\(' is not a regex"),
        ({"learning_rates": ("dense",)}, learning_rate_factors, r"'dense' is not a pair"),
        ({"weight_decays": (("dense", -1.0),)}, weight_decay_factors, "factor of 0 or more"),
        ({"frozen": ("nothing",)}, frozen, "frozen: no parameter matches 'nothing'"),
        ({"frozen": (".",)}, frozen, "leaves nothing to train"),
        ({"layer_decay": 0.5}, learning_rate_factors, "the model has none"),
        ({"layer_decay": 1.5}, learning_rate_factors, r"must lie in \(0, 1\], not 1.5"),
    ],
)
def test_a_mistake_is_named(changes, function, message):
    with pytest.raises(UserError, match=message):
        function(section(**changes), PARAMS)


TOWERS = dict(image_layers=3, unimodal_layers=2, multimodal_layers=1)
MODELS = {
    # By model: path -> layers above it, of which the decay takes the power.
    "coca": (
        lambda: coca.Model(20, 6, 16, size_overrides=TOWERS),
        {
            "image_tower/patch_embedding/kernel": 4,
            "image_tower/positions": 4,
            "image_tower/stack/blocks_0/mlp_in/kernel": 3,
            "image_tower/stack/blocks_2/norm_self/scale": 1,
            "image_tower/stack/norm/scale": 0,
            "text_tower/embedding/embedding": 3,
            "text_tower/cls": 3,
            "text_tower/stack/blocks_1/mlp_out/bias": 1,
            "caption_decoder/stack/blocks_0/cross_attention/key/kernel": 1,
            "caption_decoder/head/kernel": 0,
            "contrastive_pooler/queries": 0,
            "logit_scale": 0,
        },
    ),
    "open_clip_coca": (
        lambda: open_clip_coca.Model(
            20, 6, 32, overrides=dict(image_layers=1, text_layers=1, decoder_layers=3)
        ),
        {
            "image_tower/cls": 2,
            "image_tower/pre_norm/scale": 2,
            "caption_decoder/stack/cross_blocks_2/mlp_in/kernel": 1,
            "caption_decoder/stack/blocks_0/mlp_in/kernel": 3,
            "image_tower/stack/blocks_0/mlp_in/kernel": 1,
        },
    ),
    "bert": (
        lambda: bert.Model(20, 7, overrides=dict(layers=2)),
        {
            "text_tower/segments/embedding": 3,
            "text_tower/norm/scale": 3,
            "text_tower/stack/blocks_1/norm_mlp/scale": 1,
            "pooler/kernel": 0,
        },
    ),
    "t5": (
        lambda: t5.Model(20, 7, "tiny"),
        {"encoder/relative_bias/embedding": 0, "encoder/stack/norm/scale": 0},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_decay_with_their_distance_from_the_top(name):
    make, expected = MODELS[name]
    model = make()
    params = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    factors = layer_factors(0.5, list(named_leaves(params)))
    assert {path: factors[path] for path in expected} == {
        path: 0.5**layers for path, layers in expected.items()
    }
    inputs = [f for path, f in factors.items() if "positions" in path or "patch_emb" in path]
    assert all(factor < 1 for factor in inputs)


def test_convolutional_towers_have_stages():
    names = [f"image_tower/{name}/kernel" for name in (
        "stem_conv_0", "stage_0_block_0/conv_1", "stage_0_block_1/conv_1", "stage_1_block_0/conv_1",
        "pool/attention/query",
    )]  # fmt: skip
    expected = [0.5**layers for layers in (4, 3, 2, 1, 0)]
    assert list(layer_factors(0.5, names).values()) == expected


def test_an_embedding_for_two_towers_counts_with_the_deeper_one():
    blocks = ["encoder/stack/blocks_0/x", "encoder/stack/blocks_1/x", "decoder/stack/blocks_0/x"]
    expected = [0.5**3, 0.5**2, 0.5, 0.5]
    assert list(layer_factors(0.5, ["embedding/embedding", *blocks]).values()) == expected
