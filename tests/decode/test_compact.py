"""Small caches, small weights and prompts in one pass, beside what they stand for."""

import captions_until_killed
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.errors import ScopeParamNotFoundError
from plain_search import words

from capjax.decode.captioner import Captioner
from capjax.decode.options import Options
from capjax.decode.search import search
from capjax.errors import UserError
from capjax.models import int8
from capjax.models.attention import kept_as
from capjax.models.coca import Model
from capjax.special_tokens import BOS_ID, EOS_ID, PAD_ID

BATCH = 6
RNG = np.random.default_rng(3)
TEXTS = [[*RNG.integers(4, 40, count).tolist(), EOS_ID] for count in (3, 8, 5, 6, 2, 4)]


@pytest.fixture(scope="module")
def trained():
    """A captioner that has learnt six captions by heart, and the contexts that they belong to."""
    captioner = captions_until_killed.captioner()
    model = captioner.model
    tokens = np.full((BATCH, model.max_length), PAD_ID)
    for row, text in zip(tokens, TEXTS, strict=True):
        row[: len(text) + 1] = [BOS_ID, *text]
    context = jax.random.normal(jax.random.key(0), (BATCH, 1, 64))
    optimizer = optax.adam(3e-3)

    def loss(params):
        words = model.apply({"params": params}, tokens, method="encode_text")[1]
        logits = model.apply({"params": params}, words, context, method="caption_logits")
        each = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return jnp.sum(each * (tokens[:, 1:] != PAD_ID))  # no word has the padding's id

    @jax.jit
    def train(params):
        def step(_, carry):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 150, step, (params, optimizer.init(params)))[0]

    params = jax.tree.map(lambda x: 0.3 * x if x.ndim > 1 else x, captioner.params)
    return Captioner(model, train(params), captioner.tokenizer), context


@pytest.fixture(scope="module")
def small(trained):
    captioner, _ = trained
    return Captioner(*int8.quantise(captioner.model, captioner.params), captioner.tokenizer)


def size(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def texts(captioner, context, **fields):
    found = search(captioner.model, captioner.params, context, 1.5, Options(**fields))
    return [words(row) for row in found.tokens[:, 0]]


def test_rounding_by_hand():
    """Channels whose largest weights are 12.7 and 2.54: scales of 0.1 and 0.02."""
    whole, scale = int8.rounded(jnp.array([[12.7, -2.54, 0], [-0.34, 0.031, 0]]), (0,))
    np.testing.assert_allclose(scale, [0.1, 0.02, 0], rtol=1e-6)
    np.testing.assert_array_equal(whole, [[127, -127, 0], [-3, 2, 0]])
    assert whole.dtype == jnp.int8
    weights = jax.random.normal(jax.random.key(0), (5, 4, 8))
    whole, scale = int8.rounded(weights, (0, 1))
    off = jnp.abs(whole * scale - weights)
    assert scale.shape == (8,)
    assert jnp.all(off <= scale / 2 * (1 + 1e-5))
    assert jnp.max(off / scale) > 0.4


def test_eight_bits_are_a_quarter_of_the_bytes_and_write_the_same(trained, small):
    captioner, context = trained
    kept = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(captioner.params)
        if path[-1].key not in ("kernel", "embedding") or leaf.ndim > 3  # the patches' convolution
    ]
    matrices = size(captioner.params) - size(kept)
    scales = size(small.params) - size(kept) - matrices // 4
    # One float a column of four bytes each, of matrices with 16 rows and more.
    assert 0 < scales < matrices / 16
    written = texts(captioner, context)
    assert sum(a == b for a, b in zip(written, TEXTS, strict=True)) >= 5
    assert texts(small, context) == written


def test_eight_bit_outputs_are_within_the_bound_of_their_weights(trained, small):
    captioner, _ = trained
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 64)).astype(np.float32)
    exact, rounded = (
        c.model.apply({"params": c.params}, x, method="token_logits") for c in (captioner, small)
    )
    scale = np.asarray(small.params["caption_decoder"]["head"]["kernel_scale"])
    bound = np.abs(x).sum(1, keepdims=True) * scale / 2
    off = np.abs(np.asarray(exact - rounded))
    assert np.all(off <= bound + 1e-5)
    assert off.max() > 0
    # A row of a table is a token's own channel.
    table = captioner.params["text_tower"]["embedding"]["embedding"]
    own = small.params["text_tower"]["embedding"]
    back = own["embedding_int8"] * own["embedding_scale"][:, None]
    assert np.all(np.abs(back - table) <= own["embedding_scale"][:, None] / 2 * (1 + 1e-5))


def test_what_is_quantised_is_not_taken_for_what_is_not(trained, small):
    model, states = trained[0].model, np.zeros((1, 64))
    with pytest.raises(ScopeParamNotFoundError, match="kernel"):
        model.apply({"params": small.params}, states, method="token_logits")
    with pytest.raises(UserError, match="8-bit already"):
        int8.quantise(model, small.params)


def test_a_cache_of_16_bits_is_half_and_writes_the_same(trained):
    captioner, context = trained
    model = captioner.model
    state = jax.jit(lambda c: model.apply({"params": captioner.params}, c, method="start_decoding"))
    whole = state(context)
    half = kept_as("bfloat16", whole)
    # Keys and values, of one layer in each half of the text, and the decoder's one of the picture.
    positions = model.max_length - 1
    values = 2 * BATCH * 64 * (2 * positions + context.shape[1])
    assert (size(whole), size(half)) == (4 * values, 2 * values)
    assert texts(captioner, context, cache_dtype="bfloat16") == texts(captioner, context)
    # What is kept is rounded to 8 bits, an error of at most 1 in 256; so are queries and weights.
    tokens = np.full((BATCH, 1), BOS_ID)
    read = jax.jit(
        lambda state: model.apply(
            {"params": captioner.params}, tokens, jnp.int32(0), state, method="read_tokens"
        )
    )
    exact, rounded = read(whole), read(half)
    assert rounded[1].text[0].self_attention.key.dtype == jnp.bfloat16
    off = np.abs(np.asarray(exact[0] - rounded[0])).max()
    assert 0 < off < 4 / 256 * np.abs(np.asarray(exact[0])).max()
    with pytest.raises(UserError, match="cache_dtype='int4' must be"):
        Options(cache_dtype="int4")


class OneByOne(Model):
    """Reads prompts as it writes, token by token."""

    read_tokens = None

    def decode_step(self, tokens, position, state):
        states, state = Model.read_tokens(self, tokens[:, None], position, state)
        return self.token_logits(states[:, 0]), state


@pytest.mark.parametrize("options", [Options(keep_scores=True), Options(num_beams=3)])
def test_prompts_in_one_pass_are_those_read_one_by_one(options):
    """Also where some end before others, and where each picture has its own."""
    captioner = captions_until_killed.captioner()
    model = captioner.model
    fields = {name: getattr(model, name) for name in ("vocab_size", "max_length", "image_size")}
    slow = OneByOne(**fields, size_overrides=model.size_overrides)
    context = jax.random.normal(jax.random.key(1), (BATCH, 1, 64))
    prompt = np.random.default_rng(0).integers(4, 40, (BATCH, 5))
    for lengths in ([5] * BATCH, [3, 5, 2, 4, 2, 3], [0, 1, 5, 2, 0, 3]):
        found, expected = (
            search(m, captioner.params, context, 2.0, options, prompt=prompt, prompt_length=lengths)
            for m in (model, slow)
        )
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        for name in ("log_prob", "score", "token_scores"):
            values = getattr(found, name), getattr(expected, name)
            if values[0] is not None:
                np.testing.assert_allclose(*values, rtol=2e-4, atol=2e-4)
        for row, length in enumerate(lengths):
            assert np.all(np.asarray(found.tokens[row, :, :length]) == prompt[row, :length])
    ended = np.any(np.asarray(found.tokens) == EOS_ID, -1)
    assert ended.any()


def test_caches_have_room_for_what_is_asked(trained):
    captioner, context = trained
    model = captioner.model

    def rows(length):
        started = jax.eval_shape(
            lambda p: model.apply({"params": p}, context, length, method="start_decoding"),
            captioner.params,
        )
        return {leaf.shape[2] for leaf in jax.tree.leaves(started)} - {context.shape[1]}

    assert rows(3) == {3}
    assert rows(None) == {model.max_length - 1}
    short = texts(captioner, context, max_length=3)
    assert short == [text[:3] for text in texts(captioner, context)]
