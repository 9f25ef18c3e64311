"""GPT-2, Llama and Qwen2: the numbers of the transformers library, and its texts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peer_weights import assert_close, assert_goes_back, cases, params, source

from capjax import config as config_lib
from capjax.decode.greedy import greedy
from capjax.errors import UserError
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.special_tokens import SpecialTokens
from capjax.weights import gpt2, llama
from capjax.weights.plan import NotThisFamily, Source

CASES = [(gpt2, case) for case in cases("gpt2")] + [(llama, case) for case in cases("llama")]
FILES = ("vocab.json", "tokenizer.model")


@functools.cache
def built(number, folder, length):
    """(plan, model, parameters, case): the model has no BOS, as the public ones were asked."""
    family, case = CASES[number]
    plan = family.plan(source(case, folder))
    section = config_lib.as_config(dict(plan.model))
    special = SpecialTokens(pad=0, bos=None, eos=0, never_written=())
    model = config_lib.instantiate(
        section,
        "Model",
        vocab_size=case["config"]["vocab_size"],
        max_length=length,
        special_tokens=special,
    )
    return plan, model, params(plan, model, source(case).tensors, *model.inputs()), case


@pytest.fixture(params=range(len(CASES)), ids=lambda n: f"{CASES[n][0].FAMILY}-{n}")
def checkpoint(request, tmp_path_factory):
    """A builder of models for rows of a length, over a folder with tokenizer files."""
    folder = tmp_path_factory.getbasetemp() / "published"
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).touch()
    return functools.partial(built, request.param, folder)


def test_logits_and_gradients_are_those_of_the_library(checkpoint):
    case = checkpoint(13)[3]
    tokens = np.array(case["tokens"])
    # Rows of one token more: the last one is not read.
    plan, model, weights, _ = checkpoint(tokens.shape[1] + 1)
    rows = np.pad(tokens, ((0, 0), (0, 1)))

    def loss(weights):
        logits = model.apply({"params": weights}, rows)
        chosen = jnp.take_along_axis(
            jax.nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], axis=-1
        )
        return -chosen.mean(), logits

    (value, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(weights)
    expected = case["outputs"]
    assert_close(logits, expected["logits"])
    np.testing.assert_allclose(value, expected["loss"], rtol=1e-5)
    last_norm = gradient["language_model"]["stack"]["norm"]["scale"]
    assert_close(last_norm, expected["gradient"], 1e-4)
    assert_goes_back(plan, weights, source(case).tensors)


def test_greedy_texts_are_those_of_the_library(checkpoint):
    """From two tokens on, over a cache, on one device and on as many as rows."""
    _, model, weights, case = checkpoint(12)
    written = np.array(case["outputs"]["written"])
    prompt = np.array(case["tokens"])[:, :2]
    context = np.zeros((len(written), 0, 1), np.float32)
    found = greedy(model, weights, context, prompt=prompt)
    for row, expected in zip(np.asarray(found.tokens), written, strict=True):
        end = np.flatnonzero(expected[1:] == 0)
        length = end[0] + 1 if len(end) else len(expected) - 1
        np.testing.assert_array_equal(row[:length], expected[1 : length + 1])
    with jax.set_mesh(make_mesh({"data": len(written)})) as mesh:
        spread = put_batch({"context": context}, batch_sharding(jax.sharding.get_mesh()))
        again = greedy(model, weights, spread["context"], prompt=prompt)
    np.testing.assert_array_equal(again.tokens, found.tokens)
    del mesh


def test_what_cannot_be_imported_is_said(tmp_path):
    (tmp_path / "vocab.json").touch()
    case = cases("gpt2")[0]
    changed = case | {"config": case["config"] | {"activation_function": "tanh"}}
    with pytest.raises(UserError, match="activation_function='tanh'"):
        gpt2.plan(source(changed, tmp_path))
    apart = case | {"config": case["config"] | {"tie_word_embeddings": False}}
    apart["tensors"] = case["tensors"] | {
        "lm_head.weight": case["tensors"]["transformer.wte.weight"]
    }
    with pytest.raises(UserError, match="with a head of its own"):
        gpt2.plan(source(apart, tmp_path))
    with pytest.raises(NotThisFamily, match="model_type is 'gpt2', not llama or qwen2"):
        llama.plan(source(case, tmp_path))
    with pytest.raises(NotThisFamily, match=r"no tensor 'wte\.weight'"):
        gpt2.plan(Source(tmp_path, {}, {}, {}))
    case = cases("llama")[0]
    yarn = case["config"] | {"rope_parameters": {"rope_type": "yarn"}}
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(UserError, match="rotary positions of the type 'yarn'"):
        llama.plan(source(case | {"config": yarn}, tmp_path))
    with pytest.raises(NotThisFamily, match="num_attention_heads"):
        llama.plan(source(case | {"config": {}}, tmp_path))
    with pytest.raises(UserError, match=r"tokenizer of .* is not there .*--tokenizer"):
        llama.plan(source(case, tmp_path / "elsewhere"))


def test_a_prompt_needs_room(checkpoint):
    _, model, weights, _ = checkpoint(12)
    with pytest.raises(UserError, match="a prompt of 11 tokens leaves no room in max_length=12"):
        greedy(model, weights, np.zeros((1, 0, 1)), prompt=np.ones((1, 12), int))
    with pytest.raises(UserError, match="tokenizer has none"):
        greedy(model, weights, np.zeros((1, 0, 1)))
