"""The decoding loop against plain loops of full passes, and against what must be the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_params
from plain_search import Random

from capjax.decode.companion import Companion
from capjax.decode.options import Options
from capjax.decode.search import schedule_of, search
from capjax.errors import UserError
from capjax.models import language_model
from capjax.models.coca import Model
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.special_tokens import BOS_ID, EOS_ID, PAD_ID, SpecialTokens

VOCABULARY, LENGTH, SIDE, BATCH = 15, 7, 16, 4
NEVER = list(SpecialTokens().never_written)


@pytest.fixture(scope="module")
def coca():
    """A random model whose captions differ and end at different places."""
    shallow = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)
    model = Model(VOCABULARY, LENGTH, SIDE, size_overrides=shallow)
    params = random_params.draw(model, 0.3)
    params["text_tower"]["embedding"]["embedding"] *= 8.0
    params["text_tower"]["positions"] *= 8.0
    params["caption_decoder"]["head"]["bias"][EOS_ID] += 3.0
    context = jax.random.normal(jax.random.key(3), (BATCH, 1, 64)) * 2
    return model, params, context


@pytest.fixture(scope="module")
def captioner():
    """One without layers, for what is not about them: its loops compile quickly."""
    model = Random(VOCABULARY, LENGTH, SIDE)
    return model, model.own_params, jnp.array([3.0, 14.0, 15.0, 92.0])[:, None, None]


def random_log_p(context, written):
    """`log_p` of the captioner without layers."""
    return Random(VOCABULARY, LENGTH, SIDE).log_p(int(context[0, 0, 0]), [BOS_ID, *written])


@pytest.fixture(scope="module")
def log_p(coca):
    """(context [1,C,E], tokens so far) -> log p of the next token [V], by a whole pass."""
    model, params, _ = coca

    @jax.jit
    def whole(context, tokens):
        words = model.apply({"params": params}, tokens, method="encode_text")[1]
        logits = model.apply({"params": params}, words, context, method="caption_logits")
        return jax.nn.log_softmax(logits)

    def one(context, written):
        row = np.full((1, LENGTH), PAD_ID, np.int32)
        row[0, 0], row[0, 1 : 1 + len(written)] = BOS_ID, written
        return np.asarray(whole(context, row))[0, len(written)]

    return one


def guided(log_p, context, written, scale):
    """log of the guided distribution over words that may be written."""
    with_picture, without = log_p(context, written), log_p(jnp.zeros_like(context), written)
    score = np.asarray(jax.nn.log_softmax(without + scale * (with_picture - without)))
    score = score.copy()
    score[NEVER] = -np.inf
    return score


def plain_beams(log_p, context, scale, beams):
    """Beam search as it is taught: every finished caption counts by its log p, none is cut off."""
    under_way, finished = [(0.0, [])], []
    for step in range(LENGTH - 1):
        more = []
        for score, written in under_way:
            found = guided(log_p, context, written, scale)
            more += [(score + found[t], [*written, t]) for t in np.flatnonzero(np.isfinite(found))]
        more.sort(key=lambda item: -item[0])
        last = step == LENGTH - 2
        finished += [m for m in more[:beams] if m[1][-1] == EOS_ID or last]
        under_way = [m for m in more if m[1][-1] != EOS_ID][:beams]
    return sorted(finished, key=lambda item: -item[0])[:beams]


def words(tokens):
    """Up to the end, it included."""
    end = np.flatnonzero(tokens == EOS_ID)
    return tokens[: end[0] + 1].tolist() if len(end) else tokens.tolist()


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_guided_beams_equal_plain_ones(coca, log_p, scale):
    model, params, context = coca
    options = Options(num_beams=3, length_penalty=0.0, early_stopping="never", keep_scores=True)
    found = search(model, params, context, scale, options)
    for row in range(BATCH):
        expected = plain_beams(log_p, context[row : row + 1], scale, 3)
        assert [words(tokens) for tokens in np.asarray(found.tokens[row])] == [
            written for _, written in expected
        ]
        np.testing.assert_allclose(found.score[row], [s for s, _ in expected], atol=1e-4)
        best = words(np.asarray(found.tokens[row, 0]))
        each = [log_p(context[row : row + 1], best[:i])[t] for i, t in enumerate(best)]
        np.testing.assert_allclose(found.log_prob[row, 0], sum(each), atol=1e-4)
        kept = np.asarray(found.token_scores[row, 0, : len(best)])
        np.testing.assert_allclose(kept[:, 0], each, atol=1e-4)
        if scale != 1:
            zeros = jnp.zeros_like(context[:1])
            blind = [log_p(zeros, best[:i])[t] for i, t in enumerate(best)]
            np.testing.assert_allclose(kept[:, 1], blind, atol=1e-4)


def test_samples_follow_the_guided_distribution(captioner):
    model, params, context = captioner
    count = 2000
    options = Options(sample=True, samples=count, temperature=0.8, max_length=1)
    found = search(model, params, context[:1], 1.5, options, rng=jax.random.key(0))
    expected = guided(random_log_p, context[:1], [], 1.5) / 0.8
    expected = np.exp(expected - expected.max())
    expected /= expected.sum()
    share = np.bincount(np.asarray(found.tokens).ravel(), minlength=VOCABULARY) / count
    spread = np.sqrt(expected * (1 - expected) / count)
    assert np.all(np.abs(share - expected) <= 4 * spread + 1e-9)
    assert np.sum(share > 0) > 4


def test_a_pictures_samples_depend_on_its_key_alone(captioner):
    model, params, context = captioner
    options = Options(sample=True, samples=5, top_p=0.9)
    keys = jax.random.split(jax.random.key(5), BATCH)
    found = search(model, params, context, 1.5, options, rng=keys)
    assert len({tuple(tokens) for tokens in np.asarray(found.tokens[0]).tolist()}) > 2
    order = np.array([2, 0, 3, 1])
    moved = search(model, params, context[order], 1.5, options, rng=keys[order])
    np.testing.assert_array_equal(moved.tokens, found.tokens[order])
    with jax.set_mesh(make_mesh({"data": 4})):
        batch = {"context": np.asarray(context)}
        spread = put_batch(batch, batch_sharding(jax.sharding.get_mesh()))
        many = search(model, params, spread["context"], 1.5, options, rng=keys)
    np.testing.assert_array_equal(many.tokens, found.tokens)
    with pytest.raises(UserError, match="sampling needs a key"):
        search(model, params, context, 1.5, options)


def test_the_best_alone_is_greedy(captioner):
    model, params, context = captioner
    greedy = search(model, params, context, 2.0)
    drawn = search(
        model, params, context, 2.0, Options(sample=True, top_k=1), rng=jax.random.key(1)
    )
    np.testing.assert_array_equal(drawn.tokens, greedy.tokens)


def test_guidance_may_change_with_the_position(captioner):
    model, params, context = captioner
    weights = (1.0, 0.5, 0.0)
    np.testing.assert_array_equal(schedule_of(weights, 5), [1, 0.5, 0, 0, 0])
    found = search(model, params, context, 3.0, Options(guidance_schedule=weights))
    for row in range(BATCH):
        written = []
        while len(written) < LENGTH - 1 and EOS_ID not in written:
            scale = 1 + 2.0 * [1.0, 0.5, 0.0, 0.0, 0.0, 0.0][len(written)]
            found_now = guided(random_log_p, context[row : row + 1], written, scale)
            written.append(int(found_now.argmax()))
        assert words(np.asarray(found.tokens[row, 0])) == written
    off = search(model, params, context, 3.0, Options(guidance_schedule=(0.0,)))
    np.testing.assert_array_equal(off.tokens, search(model, params, context).tokens)


def test_prompts_of_several_lengths_are_each_their_own(captioner):
    model, params, context = captioner
    prompt = np.array([[5, 6, 7], [8, 0, 0], [0, 0, 0], [9, 10, 0]])
    lengths = np.array([3, 1, 0, 2])
    for options, rows in ((Options(), (0, 1)), (Options(num_beams=2), (1, 2, 3))):
        found = search(model, params, context, 2.0, options, prompt=prompt, prompt_length=lengths)
        for row, length in ((row, lengths[row]) for row in rows):
            own = search(
                model,
                params,
                context[row : row + 1],
                2.0,
                options,
                prompt=prompt[row : row + 1, :length],
            )
            np.testing.assert_array_equal(found.tokens[row], own.tokens[0])
            np.testing.assert_allclose(found.score[row], own.score[0], rtol=1e-4, atol=1e-5)
            assert np.all(np.asarray(found.tokens[row, :, :length]) == prompt[row, :length])


def test_groups_of_beams_avoid_each_other(captioner):
    model, params, context = captioner
    # An end is no choice that later groups avoid.
    together = search(model, params, context, 1.0, Options(num_beams=3, min_length=1))
    apart = Options(num_beams=3, groups=3, diversity_penalty=100.0, min_length=1)
    found = search(model, params, context, 1.0, apart)
    first = np.sort(np.asarray(found.tokens)[:, :, 0], 1)
    assert np.all(np.diff(first, axis=1) > 0)
    assert np.any(np.diff(np.sort(np.asarray(together.tokens)[:, :, 0], 1), axis=1) == 0)
    # Groups that do not mind each other are greedy ones.
    alone = search(model, params, context, 1.0, Options(num_beams=3, groups=3))
    greedy = search(model, params, context, 1.0)
    np.testing.assert_array_equal(alone.tokens[:, 1], greedy.tokens[:, 0])


def test_language_model_guidance_with_the_captioner_as_model_is_guidance(captioner):
    """With q = p(x) and alpha = beta = gamma (guiding, section 3.2)."""
    model, params, context = captioner
    blind = Companion(model, params, alpha=2.0, beta=2.0, context=jnp.zeros_like(context))
    found = search(model, params, context, companion=blind)
    expected = search(model, params, context, 2.0)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    beams = Options(num_beams=3)
    found = search(model, params, context, options=beams, companion=blind)
    np.testing.assert_array_equal(found.tokens, search(model, params, context, 2.0, beams).tokens)


def test_contrasted_with_itself_a_captioner_stays_what_it_is(captioner):
    model, params, context = captioner
    same = Companion(model, params, "contrastive", alpha=0.1, beta=0.7, context=context)
    found = search(model, params, context, companion=same)
    np.testing.assert_array_equal(found.tokens, search(model, params, context).tokens)
    other = Companion(model, params, "contrastive", 0.1, 0.7, context=context[::-1])
    different = search(model, params, context, companion=other)
    assert np.any(different.tokens != found.tokens)


def test_a_prompted_language_model_speaks_with_the_captioner(coca, log_p):
    model, params, context = coca
    lm = language_model.Model(VOCABULARY, 24, "tiny", dict(layers=1, width=16, heads=2, mlp_dim=32))
    lm_params = random_params.draw(lm, 0.3)
    prompt, newline = np.array([6, 7, 8, 5]), 5

    @jax.jit
    def lm_logits(tokens):
        return lm.apply({"params": lm_params}, tokens)

    def expected(row):
        written = []
        while len(written) < LENGTH - 1 and EOS_ID not in written:
            read = np.full((1, 24), PAD_ID)
            read[0, : 4 + len(written)] = [*prompt, *written]
            q = np.asarray(lm_logits(read))[0, 3 + len(written)].copy()
            q[EOS_ID], q[newline] = q[newline], -np.inf
            picture, blind = (
                log_p(c, written) for c in (context[row : row + 1], jnp.zeros_like(context[:1]))
            )
            score = np.asarray(jax.nn.log_softmax(q)) + 1.5 * picture - 0.5 * blind
            score[NEVER] = -np.inf
            written.append(int(score.argmax()))
        return written

    companion = Companion(lm, lm_params, alpha=1.5, beta=0.5, prompt=prompt, end_token=newline)
    found = search(model, params, context, companion=companion)
    for row in range(BATCH):
        assert words(np.asarray(found.tokens[row, 0])) == expected(row)
    alone = search(model, params, context)
    assert np.any(found.tokens != alone.tokens)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(num_beams=0), "num_beams=0 must be at least 1"),
        (dict(num_beams=3, groups=2), "groups=2 does not divide num_beams=3"),
        (dict(num_beams=2, sample=True), "exclude each other"),
        (dict(samples=3), "without sample=True"),
        (dict(temperature=0.0), "temperature=0.0 must be above 0"),
        (dict(top_p=0.0), "top_p=0.0"),
        (dict(min_p=1.0), "min_p=1.0"),
        (dict(top_k=-1), "top_k=-1 must be 0 or more"),
        (dict(early_stopping="soon"), "early_stopping='soon'"),
        (dict(max_length=0), "max_length=0"),
        (dict(banned=((),)), "a banned word has no tokens"),
    ],
)
def test_options_that_cannot_be_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Options(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(kind="friend"), "unknown kind of companion"),
        (dict(alpha=-1.0), "alpha=-1.0"),
        (dict(beta=-1.0), "beta=-1.0"),
        (dict(kind="contrastive", alpha=2.0), "alpha=2.0 of contrastive"),
    ],
)
def test_companions_that_cannot_be_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Companion(None, None, **fields)


def test_prompts_that_cannot_be_are_refused(captioner):
    model, params, context = captioner
    with pytest.raises(UserError, match="a prompt of 6 tokens leaves no room"):
        search(model, params, context, prompt=np.ones((BATCH, 6), int))
    with pytest.raises(UserError, match="prompt_length must lie between 0"):
        search(model, params, context, prompt=np.ones((BATCH, 2), int), prompt_length=[3] * BATCH)
    long = Companion(model, params, context=context, prompt=np.ones(5, int))
    with pytest.raises(UserError, match="exceed the other model's max_length=7"):
        search(model, params, context, companion=long)
