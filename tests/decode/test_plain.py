"""Every search against plain ones, for options that hypothesis draws; and phrases in captions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_search import NEVER, Random, beams, contains, forbidden, greedy, guided, words

from capjax.decode import phrases, scores
from capjax.decode.options import Options
from capjax.decode.search import search
from capjax.errors import UserError
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.special_tokens import BOS_ID, EOS_ID, SpecialTokens

MODEL = Random()
STEPS = MODEL.max_length - 1
BEGINS = np.array([3, 14, 15, 92, 65, 35, 89, 79])
CONTEXT = BEGINS[:, None, None].astype(np.float32)
WORDS = [t for t in range(MODEL.vocab_size) if t not in (*NEVER, EOS_ID)]
JOINING = (8, 10)  # tokens that go on with the word before them
# Of each picture: one word, two of which one is long or another, none, two that overlap, one that
# cannot stand where it would go on with a word, three, one written twice over, and again none.
WANTED = [
    [[(4, 5)]],
    [[(6,)], [(7, 8), (9,)]],
    [],
    [[(4, 4, 5)], [(5, 6)]],
    [[(10, 7), (9, 8)]],
    [[(4,), (5,)], [(6, 5)], [(7,)]],
    [[(9, 9, 9)], [(9,)]],
    [],
]


def made(wanted, joining=()):
    joins = np.isin(np.arange(MODEL.vocab_size), joining)
    return phrases.make(wanted, MODEL.vocab_size, SpecialTokens(), joins)


def found_by(options, scale, wanted=None, joining=(), context=CONTEXT):
    own = None if wanted is None else made(wanted, joining)
    return search(MODEL, MODEL.own_params, context, scale, options, phrases=own)


def check(found, options, scale, wanted=None, joining=()):
    """Token for token, with scores and log p."""
    for row, begin in enumerate(BEGINS.tolist()):
        got = [words(tokens) for tokens in np.asarray(found.tokens[row])]
        if options.num_beams == 1:
            assert got == [greedy(MODEL, begin, scale, options, STEPS)]
            continue
        own = wanted[row] if wanted else ()
        expected = beams(MODEL, begin, scale, options, STEPS, own, joining)
        # Of what must be there a picture may have fewer captions than there are beams.
        assert got[: len(expected)] == [text for _, _, text in expected]
        for got, place in ((found.score, 0), (found.log_prob, 1)):
            values = [caption[place] for caption in expected]
            np.testing.assert_allclose(got[row, : len(values)], values, rtol=1e-4, atol=1e-4)
        for _, _, text in expected:
            assert all(contains(text, phrase, joining) for phrase in own)


# Few loops, each compiled once: what changes no loop is drawn for all of them.
LOOPS = (
    Options(),
    Options(repetition_penalty=1.4, no_repeat_ngram=2, min_length=3, banned=((4,), (5, 6))),
    Options(
        num_beams=4,
        early_stopping="never",
        length_penalty=0.4,
        no_repeat_ngram=1,
        min_length=2,
        guidance_schedule=(1.0, 0.5, 0.0),
    ),
)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.sampled_from(LOOPS), st.sampled_from([0.0, 0.5, 1.7, 3.0]))
def test_searches_equal_plain_ones(options, scale):
    check(found_by(options, scale), options, scale)


OPTIONS = st.builds(
    Options,
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    no_repeat_ngram=st.integers(0, 3),
    min_length=st.integers(0, 6),
    banned=st.lists(st.lists(st.sampled_from(WORDS[:3]), min_size=1, max_size=3), max_size=2),
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(OPTIONS, st.lists(st.sampled_from(WORDS[:4]), max_size=6), st.integers(0, 96))
def test_what_is_forbidden_equals_plain_rules(options, text, begin):
    tokens = [BOS_ID, *text]
    before = MODEL.logits_behind(begin, tokens)
    history = np.zeros((1, 8), np.int32)
    history[0, : len(tokens)] = tokens
    got = scores.forbid(
        jnp.asarray(before[None], jnp.float32),
        history,
        jnp.int32(len(tokens)),
        jnp.int32(len(text)),
        EOS_ID,
        options,
    )
    expected = forbidden(before, tokens, options, len(text))
    np.testing.assert_allclose(got[0], expected, rtol=1e-5)


FLATTENED = st.builds(
    Options,
    sample=st.just(True),
    temperature=st.sampled_from([0.5, 1.0, 1.5]),
    top_k=st.integers(0, 12),
    top_p=st.sampled_from([0.3, 0.8, 1.0]),
    min_p=st.sampled_from([0.0, 0.2]),
    typical_p=st.sampled_from([0.4, 1.0]),
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(FLATTENED, st.integers(1, 96))
def test_what_is_drawn_from_equals_plain_rules(options, begin):
    before = MODEL.logits_behind(begin, [BOS_ID])
    got = np.asarray(scores.flatten(jnp.asarray(before[None], jnp.float32), options))[0]
    kept = flattened(before, options)
    assert set(np.flatnonzero(np.isfinite(got)).tolist()) == kept
    np.testing.assert_allclose(got[list(kept)], before[list(kept)] / options.temperature, rtol=1e-5)


def flattened(logits, o):
    """The tokens that are left, by the words of each rule."""
    left = dict(enumerate(logits / o.temperature))

    def p():
        total = sum(np.exp(x) for x in left.values())
        return {token: np.exp(x) / total for token, x in left.items()}

    def reach(order, mass):
        """The first tokens of an order whose probabilities together reach `mass`."""
        each, kept, total = p(), [], 0.0
        for token in order:
            if total >= mass - 1e-9:
                break
            kept.append(token)
            total += each[token]
        return kept

    best = sorted(left, key=lambda token: -left[token])
    if o.top_k:
        left = {token: left[token] for token in best[: o.top_k]}
    if o.top_p < 1:
        left = {token: left[token] for token in reach([t for t in best if t in left], o.top_p)}
    if o.min_p:
        each = p()
        left = {t: x for t, x in left.items() if each[t] >= o.min_p * max(each.values())}
    if o.typical_p < 1:
        each = p()
        entropy = -sum(x * np.log(x) for x in each.values())
        order = sorted(left, key=lambda token: abs(-np.log(each[token]) - entropy))
        left = {token: left[token] for token in reach(order, o.typical_p)}
    return set(left)


PHRASED = Options(num_beams=4, length_penalty=0.7)


@pytest.mark.parametrize(("scale", "joining"), [(2.0, JOINING), (1.5, ())])
def test_phrases_are_in_every_caption_and_slots_are_shared_as_said(scale, joining):
    # Without words that join, the loop is the same one.
    wanted = [[[tuple(WORDS[0] if t in JOINING else t for t in a) for a in p] for p in row]
              for row in WANTED] if not joining else WANTED  # fmt: skip
    check(found_by(PHRASED, scale, wanted, joining), PHRASED, scale, wanted, joining)


def test_a_picture_without_phrases_is_searched_as_ever():
    found, plain = found_by(PHRASED, 2.0, WANTED, JOINING), found_by(PHRASED, 2.0)
    for row in (2, 7):
        np.testing.assert_array_equal(found.tokens[row], plain.tokens[row])
        np.testing.assert_array_equal(found.score[row], plain.score[row])


def test_with_beams_enough_the_best_of_all_captions_is_found():
    """Of all captions of up to 4 tokens, by brute force."""
    options = Options(num_beams=40, length_penalty=0.0, early_stopping="never", max_length=4)
    wanted = [[[(4, 5), (6,)], [(9,)]]] * 2 + [[[(7, 8, 9)]]] * 2 + [[[(4,)], [(6, 7)], [(5,)]]] * 4
    found = found_by(options, 1.5, wanted)
    for row, begin in enumerate(BEGINS.tolist()):
        best = (-np.inf, None)
        for length in range(1, 5):
            for text in itertools.product([*WORDS, EOS_ID], repeat=length):
                ends = text[-1] == EOS_ID
                if EOS_ID in text[:-1] or not (ends or length == 4):
                    continue
                if all(contains(list(text), phrase) for phrase in wanted[row]):
                    best = max(best, (score_of(begin, text, 1.5), text))
        assert words(found.tokens[row, 0]) == list(best[1])
        np.testing.assert_allclose(found.score[row, 0], best[0], rtol=1e-4)


def score_of(begin, text, scale):
    return sum(step(begin, text[:i], scale)[token] for i, token in enumerate(text))


KNOWN = {}


def step(begin, text, scale):
    key = begin, text, scale
    if key not in KNOWN:
        KNOWN[key] = guided(MODEL, begin, [BOS_ID, *text], scale)
    return KNOWN[key]


def test_phrases_behind_prompts_on_one_device_and_on_many():
    """A prompt that holds a phrase has met it, unless what follows goes on with its word. And what
    is asked for outranks what is forbidden, but costs: 4 must be written twice."""
    options = Options(num_beams=4, no_repeat_ngram=1)
    own = made([[[(9,)], [(4, 6)], [(4, 7)]]] * 8)
    prompt, lengths = np.array([[9, 4]] * 8), [2, 1] * 4

    def found_from(context):
        return search(
            MODEL,
            MODEL.own_params,
            context,
            2.0,
            options,
            prompt=prompt,
            prompt_length=lengths,
            phrases=own,
        )

    one = found_from(CONTEXT)
    for row, tokens in enumerate(np.asarray(one.tokens[:, 0])):
        text = words(tokens)
        assert text[: lengths[row]] == [9, 4][: lengths[row]]
        assert contains(text, [(4, 6)])
        assert contains(text, [(4, 7)])
        assert one.score[row, 0] < -1e4 / STEPS
    with jax.set_mesh(make_mesh({"data": 8})):
        spread = put_batch({"context": CONTEXT}, batch_sharding(jax.sharding.get_mesh()))
        many = found_from(spread["context"])
    np.testing.assert_array_equal(one.tokens, many.tokens)


@pytest.mark.parametrize(
    ("wanted", "fields", "message"),
    [
        ([[[(4,) * 5], [(5,) * 3]]], {}, r"caption 0 .* 8 tokens, and it has room for 7"),
        ([[[(4, 5)]]], dict(num_beams=1), "give num_beams of 2 or more"),
        ([[[(4, 5), (5, 4)]]], dict(banned=((5,),)), "asked for, and banned as well"),
        ([[[(4,)]], [[(5,)]]], {}, "phrases for 2 captions of 1"),
        ([[[()]]], {}, "has no tokens"),
        ([[[(4, EOS_ID)]]], {}, "its token 2 is no word"),
        ([[[(4, 99)]]], {}, "its token 99 is no word"),
        ([[[(8, 4)]]], {}, "begins within a word"),
    ],
)
def test_phrases_that_cannot_be_are_refused(wanted, fields, message):
    with pytest.raises(UserError, match=message):
        found_by(Options(**{"num_beams": 2} | fields), 1.0, wanted, JOINING, CONTEXT[:1])
