"""CLIP's ResNet, and BatchNorm with its statistics among the parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest
from two_towers import check_parity, inputs_of, params_of, run

from capjax.errors import UserError
from capjax.models import clip
from capjax.models.batch_norm import COLLECTION, BatchNorm, merge
from capjax.special_tokens import SpecialTokens
from capjax.weights import clip as names

TINY = dict(
    image_layers=(1, 1, 1, 1),
    image_width=4,
    image_heads=2,
    text_layers=1,
    text_width=32,
    text_heads=2,
    embedding_dim=16,
)
MODEL = clip.Model(20, 7, 32, "RN50", TINY)


@pytest.mark.parametrize("case", peer_cases.load("clip_resnet"), ids=["width 8", "width 4, 3x3"])
def test_a_resnet_gives_what_openclip_gives(case):
    fields = case["model"]
    overrides = fields["overrides"] | {"image_layers": tuple(fields["overrides"]["image_layers"])}
    eos = SpecialTokens(eos=fields["vocab_size"] - 1)
    model = clip.Model(**fields | {"overrides": overrides}, special_tokens=eos)
    check_parity(model, names.RESNET, names.UNREAD, case)


def test_training_moves_the_statistics_and_the_optimiser_does_not():
    """Gradients of statistics are zero, and what comes back merges into the parameters."""
    params = params_of(MODEL)
    image = peer_cases.picture((3, 32, 32, 3))

    @jax.jit
    def step(params):
        def loss(p):
            embedded, state = MODEL.apply(
                {"params": p}, image, True, mutable=[COLLECTION], method="embed_image"
            )
            return jnp.sum(embedded[0] * embedded[1]), state[COLLECTION]

        slopes, statistics = jax.grad(loss, has_aux=True)(params)
        return slopes, merge(params, statistics)

    slopes, moved = step(params)
    assert jax.tree.structure(moved) == jax.tree.structure(params)
    for (path, slope), before, after in zip(
        jax.tree_util.tree_leaves_with_path(slopes),
        jax.tree.leaves(params),
        jax.tree.leaves(moved),
        strict=True,
    ):
        names_of_leaf = [key.key for key in path]
        is_statistic = names_of_leaf[-1] in ("mean", "var")
        assert not (is_statistic and slope.any()), names_of_leaf
        assert is_statistic == bool((before != after).any()), names_of_leaf


def test_training_without_a_place_for_the_statistics_is_refused():
    with pytest.raises(UserError, match="BatchNorm, whose statistics training must keep"):
        run(MODEL, "embed_image", params_of(MODEL), inputs_of(MODEL)[0], True)


def test_evaluation_does_not_mix_the_rows_of_a_batch():
    params = params_of(MODEL)
    image = peer_cases.picture((3, 32, 32, 3))
    whole = run(MODEL, "embed_image", params, image)
    np.testing.assert_allclose(run(MODEL, "embed_image", params, image[1:2]), whole[1:2], atol=1e-5)


def norm(x, group=0, momentum=0.9, params=None):
    """(normalised, statistics) in training."""
    layer = BatchNorm(1e-5, momentum, group)
    params = params or layer.init(jax.random.key(0), x)["params"]
    return layer.apply({"params": params}, x, True, mutable=[COLLECTION])


def test_batch_norm_is_flax_s_own():
    x = np.random.default_rng(0).normal(3, 2, (6, 5, 4)).astype(np.float32)
    params = {"scale": np.arange(1.0, 5), "bias": np.arange(4.0), "mean": np.ones(4) * 2}
    params |= {"var": np.ones(4) * 3}
    ours, state = norm(x, params=params)
    theirs, expected = nn.BatchNorm(False, momentum=0.9, epsilon=1e-5).apply(
        {
            "params": {name: params[name] for name in ("scale", "bias")},
            "batch_stats": {name: params[name] for name in ("mean", "var")},
        },
        x,
        mutable=["batch_stats"],
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            state[COLLECTION][name], expected["batch_stats"][name], rtol=1e-5
        )


def test_groups_are_normalised_apart():
    """ALIGN's oracle: halves with means 0 and 10 both become 0, but not with one group."""
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    x -= np.concatenate(
        [np.repeat(half.mean(0, keepdims=True), 16, 0) for half in (x[:16], x[16:])]
    )
    x[16:] += 10
    apart, state = norm(x, group=16)
    np.testing.assert_allclose(apart[:16].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(apart[16:].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(state[COLLECTION]["mean"], 0.1 * 5, rtol=1e-5)
    inside = np.stack([x[:16].var(0), x[16:].var(0)]).mean(0)
    np.testing.assert_allclose(state[COLLECTION]["var"], 0.9 + 0.1 * inside, rtol=1e-5)
    together = norm(x)[0]
    assert together[16:].mean() - together[:16].mean() > 1
    with pytest.raises(UserError, match="groups of 16 needs a batch that is a multiple of it, not"):
        norm(x[:24], group=16)


def test_a_side_that_the_resnet_does_not_divide_is_named():
    model = clip.Model(20, 7, 48, "RN50", TINY)
    with pytest.raises(UserError, match="image_size=48 is no multiple of 32"):
        jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))
