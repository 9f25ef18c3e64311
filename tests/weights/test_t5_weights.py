"""T5, both versions: the numbers of the transformers library and its texts, cached or not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from peer_weights import assert_close, assert_goes_back, cases, params, source

from capjax import config as config_lib
from capjax.decode.greedy import greedy
from capjax.errors import UserError
from capjax.models.t5 import Model, RelativeBias
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.parallel.sharding import parameter_shardings
from capjax.special_tokens import SpecialTokens
from capjax.weights import t5
from capjax.weights.plan import NotThisFamily, Source
from capjax.weights.table import to_tensors

CASES = cases("t5")
SPECIAL = SpecialTokens(pad=0, bos=0, eos=1, never_written=(0,))
# Of the case of version 1.1 the library's own float32 is 9e-6 away from its float64: scores that
# are not divided by the root of the head's width make softmax steep.
ROUNDING = (1e-5, 5e-5)
version = pytest.mark.parametrize("number", range(len(CASES)), ids=["1.0", "1.1"])


@functools.cache
def built(number, folder, length=10):
    """(plan, model, parameters) of a case."""
    case = CASES[number]
    plan = t5.plan(source(case, folder))
    model = config_lib.instantiate(
        config_lib.as_config(dict(plan.model)),
        "Model",
        vocab_size=case["config"]["vocab_size"],
        max_length=length,
        special_tokens=SPECIAL,
    )
    return plan, model, params(plan, model, source(case).tensors, *model.inputs())


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the tokenizer lies."""
    folder = tmp_path_factory.mktemp("t5")
    (folder / "spiece.model").touch()
    return folder


def inputs(number):
    """Source rows, with the BOS that the encoder drops, and target rows."""
    return np.pad(CASES[number]["source"], ((0, 0), (1, 0))), np.array(CASES[number]["target"])


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(model, method, weights, *args):
    """A method of the model."""
    return model.apply({"params": weights}, *args, method=method)


def loss_and_gradients(model, weights, batch):
    """(mean cross-entropy over all positions, (states, logits)), gradients."""

    def loss(weights, batch):
        encoded, words = model.apply({"params": weights}, batch["source"], method="encode_rows")
        logits = model.apply(
            {"params": weights}, batch["target"][:, :-1], encoded, words, method="logits"
        )
        chosen = jnp.take_along_axis(
            jax.nn.log_softmax(logits), batch["target"][:, 1:, None], axis=-1
        )
        return -chosen.mean(), (encoded, logits)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(weights, batch)


@version
def test_states_logits_and_gradients_are_those_of_the_library(number, folder):
    plan, model, weights = built(number, folder)
    rows, target = inputs(number)
    (loss, (encoded, logits)), gradients = loss_and_gradients(
        model, weights, {"source": rows, "target": target}
    )
    expected, words = CASES[number]["outputs"], np.array(CASES[number]["source"]) != 0
    assert_close(encoded[words], expected["encoded"], ROUNDING[number])
    assert_close(logits, expected["logits"], ROUNDING[number])
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)
    by_name = {name: make() for name, _, make in to_tensors(plan.table, gradients)}
    for name, gradient in expected["gradients"].items():
        assert_close(by_name[name], gradient, 1e-4)  # sums over thousands of scores
    assert_goes_back(plan, weights, source(CASES[number]).tensors)


@version
def test_greedy_texts_are_those_of_the_library(number, folder):
    """The padding of the sources reaches the decoder within the context."""
    _, model, weights = built(number, folder)
    rows, _ = inputs(number)
    encoded, words = run(model, "encode_rows", weights, rows)
    context = model.decoding_context(encoded, words)
    found = greedy(model, weights, context)
    expected = np.array(CASES[number]["outputs"]["written"])[:, 1:]
    np.testing.assert_array_equal(found.tokens[:, : expected.shape[1]], expected)
    again = greedy(model, weights, context, guidance_scale=1.5)  # against a context of no words
    assert np.isfinite(again.log_prob).all()


@version
def test_steps_over_a_cache_are_the_whole_forward(number, folder):
    rows, target = inputs(number)
    _, model, weights = built(number, folder, target.shape[1])
    encoded, words = run(model, "encode_rows", weights, rows)
    whole = run(model, "logits", weights, target[:, :-1], encoded, words)
    context = model.decoding_context(encoded, words)
    state, steps = run(model, "start_decoding", weights, context), []
    for position in range(target.shape[1] - 1):
        at = jnp.int32(position)
        logits, state = run(model, "decode_step", weights, target[:, position], at, state)
        steps.append(logits)
    assert_close(jnp.stack(steps, 1), whole, ROUNDING[number])


def test_a_context_of_zeros_adds_nothing(folder):
    """Guidance contrasts with a decoder whose cross-attention gives nothing."""
    _, model, weights = built(1, folder)
    encoded, words = run(model, "encode_rows", weights, inputs(1)[0])
    context = model.decoding_context(encoded, words)
    flat = flatten_dict(weights)
    silent = {
        k: 0 * v if k[-3:] == ("cross_attention", "out", "kernel") else v for k, v in flat.items()
    }

    def first(weights, context):
        state = run(model, "start_decoding", weights, context)
        return run(model, "decode_step", weights, np.array([0, 0]), jnp.int32(0), state)[0]

    nothing = first(weights, jnp.zeros_like(context))
    assert_close(nothing, first(unflatten_dict(silent), context), ROUNDING[1])
    assert np.abs(nothing - first(weights, context)).max() > 0.1


@version
def test_buckets_of_distances_are_those_of_the_library(number):
    config = CASES[number]["config"]
    for expected, causal in zip(CASES[number]["buckets"], (False, True), strict=True):
        bias = RelativeBias(
            1,
            config.get("relative_attention_num_buckets", 32),
            config.get("relative_attention_max_distance", 128),
            causal,
            1.0,
        )
        reach = len(expected) // 2
        np.testing.assert_array_equal(bias.bucket(jnp.arange(-reach, reach + 1)), expected)


def test_eight_devices_equal_one(folder):
    _, model, weights = built(0, folder)
    rows, target = inputs(0)
    batch = {"source": np.tile(rows, (8, 1)), "target": np.tile(target, (8, 1))}

    def compute(**sizes):
        mesh = make_mesh(sizes)
        with jax.set_mesh(mesh):
            placed = jax.device_put(weights, parameter_shardings(((".*", "fsdp"),), weights, mesh))
            spread = put_batch(batch, batch_sharding(mesh))
            return jax.device_get(loss_and_gradients(model, placed, spread))

    (one, (_, logits)), gradients = compute(data=1)
    (eight, (_, others)), spread = compute(data=2, fsdp=4)
    np.testing.assert_allclose(eight, one, rtol=1e-6)
    assert_close(others, logits)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(gradients))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * largest),
        spread,
        gradients,
    )


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        ("t5-small", 60_506_624),
        ("t5-base", 222_903_552),
        ("t5-large", 737_668_096),
        ("flan-t5-small", 76_961_152),
        ("flan-t5-base", 247_577_856),
        ("flan-t5-large", 783_150_080),
    ],
)
def test_published_sizes(variant, parameters):
    model = Model(32_100, 8, variant, special_tokens=SPECIAL)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *model.inputs())
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@version
def test_files_without_config_say_their_sizes(number, folder):
    case = CASES[number]
    found = t5.plan(source(case | {"config": {}}, folder)).model["overrides"]
    expected = built(number, folder)[0].model["overrides"]
    # What no tensor shows is taken to be as published.
    published = {"max_distance": 128, "epsilon": 1e-6}
    assert found == expected | published


def test_heads_tied_and_scaled(folder):
    """Files of version 1.0 hold the head twice; newer files say the scale by its own name."""
    old, new = CASES
    head = {"lm_head.weight": old["tensors"]["shared.weight"]}
    twice = old | {"tensors": old["tensors"] | head}
    plan, model, _ = built(0, folder)
    found = t5.plan(source(twice, folder))
    assert found.model == plan.model
    params(found, model, source(twice).tensors, *model.inputs())
    saved_again = new["config"] | {"tie_word_embeddings": True, "scale_decoder_outputs": False}
    found = t5.plan(source(new | {"config": saved_again}, folder)).model["overrides"]
    assert not found["tied"]
    assert not found["scaled"]
    shared = {name: shape for name, shape in new["tensors"].items() if name != "lm_head.weight"}
    found = t5.plan(source(new | {"tensors": shared}, folder)).model["overrides"]
    assert found["tied"]
    assert not found["scaled"]


def test_which_tokenizer(folder, tmp_path):
    section = t5.plan(source(CASES[0], folder)).tokenizer
    assert section["name"] == "capjax.data.sentencepiece_file"
    assert section["bos"] == section["pad"] == "<pad>"
    (tmp_path / "tokenizer.json").touch()
    section = t5.plan(source(CASES[0], tmp_path)).tokenizer
    assert section["name"] == "capjax.data.tokenizer_json"
    assert section["eos"] == "</s>"


def test_what_cannot_be_imported_is_said(folder):
    case = CASES[0]

    def changed(**fields):
        return source(case | {"config": case["config"] | fields}, folder)

    with pytest.raises(NotThisFamily, match="model_type is 'umt5', not t5"):
        t5.plan(changed(model_type="umt5"))
    with pytest.raises(NotThisFamily, match="feed_forward_proj is 'gated-gelu', and its tensors"):
        t5.plan(changed(feed_forward_proj="gated-gelu"))
    with pytest.raises(UserError, match="feed_forward_proj='tanh' is not supported"):
        t5.plan(changed(feed_forward_proj="tanh"))
    with pytest.raises(UserError, match="decoder_start_token_id=2 is not supported"):
        t5.plan(changed(decoder_start_token_id=2))
    with pytest.raises(NotThisFamily, match=r"no tensor 'shared.weight'"):
        t5.plan(Source(folder, {}, {}, {}))
    plan, model, _ = built(0, folder)
    tensors = source(case).tensors
    del tensors["decoder.final_layer_norm.weight"]
    with pytest.raises(UserError, match=r"no tensor 'decoder.final_layer_norm.weight'"):
        params(plan, model, tensors, *model.inputs())


def test_misuse_of_the_model(folder):
    small = Model(40, 8, "tiny", {"rows": 39}, special_tokens=SPECIAL)
    with pytest.raises(UserError, match="the embedding has 39 rows and the tokenizer 40 tokens"):
        jax.eval_shape(small.init, jax.random.key(0), *small.inputs())
    without = Model(40, 8, "tiny", special_tokens=SpecialTokens(pad=0, bos=None, eos=1))
    with pytest.raises(UserError, match="begin with a first token and the tokenizer has none"):
        greedy(without, {}, np.zeros((1, 4, 65), np.float32))
