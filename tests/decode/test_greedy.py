"""Guided greedy decoding against a plain loop of full passes, and the unit oracles of guiding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_params

from capjax.decode.greedy import greedy
from capjax.decode.guidance import check_scale, guide, guide_by_language_model
from capjax.errors import UserError
from capjax.models.coca import Model
from capjax.special_tokens import BOS_ID, EOS_ID, PAD_ID, SpecialTokens

VOCABULARY, LENGTH, SIDE, BATCH = 19, 8, 16, 8
END = {"bottleneck": 4.0, "attention_pooling": 6.0}  # added to the end's logit


@pytest.fixture(scope="module", params=["bottleneck", "attention_pooling"])
def captioner(request):
    """A random model with large weights, so that captions differ and end at different places."""
    queries = 2 if request.param == "attention_pooling" else 0
    # Two layers where a cache of one feeds the next.
    layers = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1 if queries else 2)
    model = Model(
        VOCABULARY,
        LENGTH,
        SIDE,
        size_overrides=layers,
        variant=request.param,
        caption_queries=queries,
    )
    params = random_params.draw(model, 0.3)
    # Words must depend on the words before them and on their place, and captions must end.
    params["text_tower"]["embedding"]["embedding"] *= 8.0
    params["text_tower"]["positions"] *= 8.0
    params["caption_decoder"]["head"]["bias"][EOS_ID] += END[request.param]
    context = jax.random.normal(jax.random.key(3), (BATCH, max(queries, 1), 64)) * 2
    return model, params, context


@functools.partial(jax.jit, static_argnums=0)
def logits_of(model, params, context, tokens):
    """[B,T,V] by a whole pass."""
    words = model.apply({"params": params}, tokens, method="encode_text")[1]
    return model.apply({"params": params}, words, context, method="caption_logits")


def reference(model, params, context, scales):
    """The same captions by whole forward passes, one call a branch, no cache, no early exit."""
    scales = np.broadcast_to(np.asarray(scales, np.float32), (len(context),))
    tokens = np.full((len(context), LENGTH), PAD_ID, np.int32)
    tokens[:, 0] = BOS_ID
    total, ended = np.zeros(len(context)), np.zeros(len(context), bool)
    for position in range(LENGTH - 1):
        conditional = np.asarray(logits_of(model, params, context, tokens)[:, position])
        unconditional = np.asarray(
            logits_of(model, params, jnp.zeros_like(context), tokens)[:, position]
        )
        score = unconditional + scales[:, None] * (conditional - unconditional)
        score[:, list(SpecialTokens().never_written)] = -np.inf
        choice = score.argmax(-1)
        log_prob = np.asarray(jax.nn.log_softmax(conditional))[np.arange(len(choice)), choice]
        total += np.where(ended, 0, log_prob)
        tokens[:, position + 1] = np.where(ended, PAD_ID, choice)
        ended |= tokens[:, position + 1] == EOS_ID
    return tokens[:, 1:], total, ~ended


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.7, 3.0, [0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 1.2, 3.0]])
def test_equals_the_uncached_loop_token_for_token(captioner, scale):
    model, params, context = captioner
    got = greedy(model, params, context, scale)
    tokens, log_prob, truncated = reference(model, params, context, scale)
    np.testing.assert_array_equal(got.tokens, tokens)
    np.testing.assert_array_equal(got.truncated, truncated)
    np.testing.assert_allclose(got.log_prob, log_prob, rtol=1e-4, atol=1e-4)


def test_captions_of_the_fixture_differ_and_some_end(captioner):
    """The comparisons above would be empty if all captions were alike."""
    got = greedy(*captioner, 2.0)
    assert len(np.unique(got.tokens, axis=0)) >= 4
    lengths = np.sum(np.asarray(got.tokens) != PAD_ID, 1)
    assert len(np.unique(lengths)) >= 2
    assert max(len(np.unique(row)) for row in np.asarray(got.tokens)) >= 3


def test_scale_zero_gives_every_picture_the_same_caption(captioner):
    tokens = greedy(*captioner, 0.0).tokens
    assert len(np.unique(tokens, axis=0)) == 1
    assert len(np.unique(greedy(*captioner, 1.0).tokens, axis=0)) > 1


def test_scale_one_skips_a_branch_and_changes_no_token(captioner):
    plain = greedy(*captioner, 1.0)
    through_both = greedy(*captioner, [1.0] * 7 + [2.0])
    np.testing.assert_array_equal(plain.tokens[:7], through_both.tokens[:7])


def test_permuting_rows_permutes_captions(captioner):
    model, params, context = captioner
    order, scales = np.array([3, 0, 7, 5, 1, 4, 2, 6]), np.array([0.5, 1, 1.5, 2, 2.5, 3, 0, 4])
    straight = greedy(model, params, context, scales)
    permuted = greedy(model, params, context[order], scales[order])
    np.testing.assert_array_equal(straight.tokens[order], permuted.tokens)


def test_finished_rows_hold_padding_and_special_tokens_are_never_written(captioner):
    tokens = np.asarray(greedy(*captioner, 3.0).tokens)
    for row in tokens:
        ends = np.flatnonzero(row == EOS_ID)
        words = row[: ends[0]] if ends.size else row
        assert not np.isin(words, SpecialTokens().never_written).any()
        assert ends.size <= 1
        assert (row[len(words) + 1 :] == PAD_ID).all()


@pytest.mark.parametrize("captioner", ["attention_pooling"], indirect=True)
def test_sharded_over_eight_devices_gives_the_same_tokens(captioner):
    model, params, context = captioner
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(
        context, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    )
    np.testing.assert_array_equal(
        greedy(model, params, sharded, 2.0).tokens, greedy(model, params, context, 2.0).tokens
    )


# Unit oracle 1: three coarse classes of two types; a caption is generic or specific.
CONDITIONAL = {"generic": 0.6, "specific": 0.4}
UNCONDITIONAL = {"generic": 0.2, "specific": 0.4 / 6}


@pytest.mark.parametrize(
    ("gamma", "choice"),
    [(1.0, "generic"), (1.5, "generic"), (1.58, "generic"), (1.59, "specific"), (1.6, "specific")],
)
def test_tabular_captioner_flips_at_ln3_over_ln2(gamma, choice):
    words = list(CONDITIONAL)
    conditional = jnp.log(jnp.array([[CONDITIONAL[w] for w in words]]))
    unconditional = jnp.log(jnp.array([[UNCONDITIONAL[w] for w in words]]))
    assert words[int(jnp.argmax(guide(conditional, unconditional, gamma)))] == choice
    assert (gamma > np.log(3) / np.log(2)) == (choice == "specific")


@pytest.mark.parametrize("ratio", [2.04, 2.07])
def test_language_model_combiner_on_the_table(ratio):
    """Unit oracle 2: at alpha 5, beta 2.5 the specific word wins up to q ratio exp(0.71921)."""
    conditional = jnp.log(jnp.array([list(CONDITIONAL.values())]))
    unconditional = jnp.log(jnp.array([list(UNCONDITIONAL.values())]))
    q = jnp.log(jnp.array([[ratio, 1.0]]))
    # The table's other words hold the rest of p; in logits they would only shift the scores.
    rest = jnp.log(1 - jnp.sum(jnp.exp(unconditional)))[None, None]
    impossible = jnp.full((1, 1), -1e9)
    score = guide_by_language_model(
        jnp.concatenate([q, impossible], 1),
        jnp.concatenate([conditional, impossible], 1),
        jnp.concatenate([unconditional, rest], 1),
        5.0,
        2.5,
    )[:, :2]
    assert (int(jnp.argmax(score)) == 1) == (ratio < np.exp(0.71921))


def test_language_model_equal_to_the_unconditional_branch_is_guidance():
    """Unit oracle 3: q = p, alpha = beta = gamma gives guided scores up to a constant a row."""
    rng = np.random.default_rng(0)
    conditional, unconditional = rng.normal(size=(2, 50, 9)) * 3
    gamma = 2.5
    plain = guide(conditional, unconditional, gamma)
    by_model = guide_by_language_model(unconditional, conditional, unconditional, gamma, gamma)
    shift = np.asarray(by_model - plain)
    np.testing.assert_allclose(shift, shift[:, :1] + np.zeros(9), atol=1e-4)
    np.testing.assert_array_equal(plain.argmax(-1), by_model.argmax(-1))
    other = guide_by_language_model(conditional, conditional, unconditional, gamma, gamma)
    assert np.ptp(np.asarray(other - plain), axis=1).min() > 0.1


@pytest.mark.parametrize("scale", [-0.1, np.nan, np.inf, [1.0, -2.0]])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(UserError, match=r"guidance_scale \(gamma\) is"):
        check_scale(scale, 2)


def test_scales_must_fit_the_batch_and_large_ones_warn():
    with pytest.raises(UserError, match=r"shape \(3,\) for 2 captions"):
        check_scale([1.0, 2.0, 3.0], 2)
    with pytest.warns(UserWarning, match="likely to degenerate"):
        check_scale(4.5, 1)
