"""A learned vector in the place of the zeroed embedding: who trains it, and who reads it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.data.token_rows import TokenRows
from capjax.decode.captioner import Captioner
from capjax.decode.explain import explain
from capjax.decode.search import without_picture
from capjax.models.coca import Model
from capjax.special_tokens import BOS_ID, EOS_ID, SpecialTokens
from capjax.tasks import caption, coca

VOCABULARY, LENGTH, SIDE = 11, 6, 16
SHALLOW = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)


def build(variant="bottleneck", **kwargs):
    queries = 3 if variant == "attention_pooling" else 0
    return Model(
        VOCABULARY, LENGTH, SIDE, size_overrides=SHALLOW, variant=variant, caption_queries=queries,
        **kwargs,
    )  # fmt: skip


class Letters(TokenRows):
    """Tokens from 4 on are letters."""

    special_tokens = SpecialTokens()
    vocab_size = VOCABULARY

    def text(self, ids):
        return " ".join("abcdefg"[token - 4] for token in ids)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    tokens = np.full((4, LENGTH), EOS_ID, np.int32)
    tokens[:, 0], tokens[:, 1:4] = BOS_ID, rng.integers(4, VOCABULARY, (4, 3))
    return {"image": rng.integers(0, 256, (4, SIDE, SIDE, 3), np.uint8), "tokens": tokens}


def drawn(model):
    """Parameters, drawn without compiling what makes first ones."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(caption.Task(model=model).init, jax.random.key(0))
    return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(
    ("variant", "task", "shape"),
    [("bottleneck", caption.Task, (1, 64)), ("attention_pooling", coca.Task, (3, 64))],
)
def test_dropped_examples_read_it_in_training_and_others_do_not(variant, task, shape, batch):
    model = build(variant, learned_null=True)
    params = drawn(model)
    assert params["null"].shape == shape
    for rate, counts in ((1.0, True), (0.0, False)):
        made = task(model=model, conditioning_dropout=rate)
        loss = jax.jit(lambda params, made=made: made.loss(params, batch, jax.random.key(1))[0])
        other = params | {"null": params["null"] + 1}
        assert bool(loss(params) != loss(other)) == counts


def test_a_model_without_it_has_no_such_parameter():
    shapes = [
        jax.eval_shape(caption.Task(model=build(learned_null=learned)).init, jax.random.key(0))
        for learned in (True, False)
    ]
    assert set(shapes[0]) - set(shapes[1]) == {"null"}
    context = jnp.ones((2, 1, 64), jnp.bfloat16)
    zeros = without_picture(build(), {}, context)
    assert (zeros.shape, zeros.dtype, float(abs(zeros).max())) == ((1, 1, 64), context.dtype, 0)


def test_it_begins_as_zeros(batch):
    model = build(learned_null=True)
    rng = jax.random.key(0)
    made = jax.jit(lambda: {"null": caption.Task(model=model).init(rng)["null"]})()
    np.testing.assert_array_equal(made["null"], np.zeros((1, 64)))


def test_decoding_and_explaining_read_it(batch):
    model = build(learned_null=True)
    params = drawn(model)
    captioner = Captioner(model, params, Letters())
    context = captioner.encode(batch["image"]).context
    null = without_picture(model, params, context)
    np.testing.assert_array_equal(null[0], params["null"])
    blind, guided = explain(captioner, context[:1], (0.0, 2.0))
    for told in (blind, guided):
        ids = [BOS_ID, *("abcdefg".index(word) + 4 for word in told.text.split())]
        rows = np.full((1, LENGTH), EOS_ID, np.int32)
        rows[0, : len(ids)] = ids
        log_p = np.array(_log_p(model, params, rows, null))
        expected = [log_p[t, token] for t, token in enumerate(ids[1:])]
        found = [token.unconditional for token in told.tokens[: len(expected)]]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        if told is blind:  # the likeliest words without a picture
            log_p[:, [0, 1, 3]] = -np.inf
            assert log_p[: len(ids) - 1].argmax(1).tolist() == ids[1:]
    assert blind.text != guided.text


@functools.partial(jax.jit, static_argnums=0)
def _log_p(model, params, rows, context):
    def forward(model):
        return model.caption_logits(model.encode_text(rows)[1], context)

    return jax.nn.log_softmax(model.apply({"params": params}, method=forward))[0]
