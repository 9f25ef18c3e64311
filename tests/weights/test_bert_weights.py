"""BERT and its sentence encoders: the numbers of the transformers library, and misuse."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from peer_weights import assert_close, assert_goes_back, cases, params, source

from capjax import config as config_lib
from capjax.errors import UserError
from capjax.models.bert import Model
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.parallel.sharding import parameter_shardings
from capjax.special_tokens import SpecialTokens
from capjax.weights import bert
from capjax.weights.plan import NotThisFamily, Source
from capjax.weights.table import to_tensors

CASES = cases("bert")
SPECIAL = SpecialTokens(pad=0, bos=1, eos=2, never_written=(0, 1))
kind = pytest.mark.parametrize("number", range(len(CASES)), ids=["texts", "pairs and heads"])


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the tokenizer lies, beside a sentence encoder's pooling."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").touch()
    return folder


@functools.cache
def built(number, folder):
    """(plan, model, parameters) of a case, for rows shorter than there are positions."""
    case = CASES[number]
    plan = bert.plan(source(case, folder))
    model = make(plan, case)
    return plan, model, params(plan, model, source(case).tensors, *model.inputs())


def make(plan, case):
    return config_lib.instantiate(
        config_lib.as_config(dict(plan.model)),
        "Model",
        vocab_size=case["config"]["vocab_size"],
        max_length=len(case["tokens"][0]),
        special_tokens=SPECIAL,
    )


def batch(number):
    """Tokens, words and segments, each [B,L]."""
    tokens, segments = (np.array(CASES[number][name]) for name in ("tokens", "segments"))
    return {"tokens": tokens, "words": tokens != 0, "segments": segments}


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradients(model, weights, rows):
    """A sum of powers of all states and of the pooled ones, both of these, and gradients."""

    def loss(weights):
        states, pooled = model.apply(
            {"params": weights}, rows["tokens"], words=rows["words"], segments=rows["segments"]
        )
        cubes = (states**3).mean(-1, where=rows["words"][..., None])
        return cubes.mean(where=rows["words"]) + (pooled**2).mean(), (states, pooled)

    return jax.value_and_grad(loss, has_aux=True)(weights)


@kind
def test_states_pooled_states_and_gradients_are_those_of_the_library(number, folder):
    plan, model, weights = built(number, folder)
    rows, expected = batch(number), CASES[number]["outputs"]
    (loss, (states, pooled)), gradients = loss_and_gradients(model, weights, rows)
    assert_close(states[rows["words"]], expected["states"])
    assert_close(pooled, expected["pooled"])
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)
    by_name = {name: make() for name, _, make in to_tensors(plan.table, gradients)}
    for name, gradient in expected["gradients"].items():
        assert_close(by_name[name], gradient, 1e-4)  # sums over all tokens
    assert_goes_back(plan, weights, source(CASES[number]).tensors)


@kind
def test_vectors_of_texts(number, folder, tmp_path):
    """[CLS] of a BERT; of a sentence encoder the mean, as the folder says."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    _, model, weights = built(number, folder)
    rows, expected = batch(number), CASES[number]["outputs"]
    arguments = (rows["tokens"], False, rows["words"], rows["segments"])

    def embed(model):
        run = jax.jit(functools.partial(model.apply, method="embed_text"), static_argnums=2)
        return run({"params": weights}, *arguments)

    by_mean = make(bert.plan(source(CASES[number], tmp_path)), CASES[number])
    assert_close(embed(by_mean), expected["mean"])
    first = np.flatnonzero(rows["tokens"][rows["words"]] == 1)  # each [CLS] among the words
    width = CASES[number]["config"]["hidden_size"]
    states = np.array(expected["states"]).reshape(-1, width)[first]
    assert_close(embed(model), states / np.linalg.norm(states, axis=-1, keepdims=True))


def test_a_text_ends_at_its_first_sep(folder):
    """Without words and segments, as the tokenizer's rows are read."""
    _, model, weights = built(0, folder)
    rows = batch(0)
    run = jax.jit(functools.partial(model.apply, method="encode_text"))
    states = run({"params": weights}, rows["tokens"])
    assert_close(states[rows["words"]], CASES[0]["outputs"]["states"])


def test_eight_devices_equal_one(folder):
    _, model, weights = built(1, folder)
    rows = {name: np.tile(value, (8, 1)) for name, value in batch(1).items()}

    def compute(**sizes):
        mesh = make_mesh(sizes)
        with jax.set_mesh(mesh):
            placed = jax.device_put(weights, parameter_shardings(((".*", "fsdp"),), weights, mesh))
            spread = put_batch(rows, batch_sharding(mesh))
            return jax.device_get(loss_and_gradients(model, placed, spread))

    (one, (states, _)), gradients = compute(data=1)
    (eight, (others, _)), spread = compute(data=2, fsdp=4)
    np.testing.assert_allclose(eight, one, rtol=1e-5)  # cubes cancel out
    assert_close(others[rows["words"]], states[rows["words"]])
    largest = max(np.abs(x).max() for x in jax.tree.leaves(gradients))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * largest),
        spread,
        gradients,
    )


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("base", 109_482_240), ("large", 335_141_888), ("minilm-l6", 22_713_216)],
)
def test_published_sizes(variant, parameters):
    model = Model(30_522, 8, variant, special_tokens=SPECIAL)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *model.inputs())
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_first_files_name_their_norms_otherwise(folder):
    case = CASES[1]

    def named(name):
        if "LayerNorm" not in name:
            return name
        return name.replace(".weight", ".gamma").replace(".bias", ".beta")

    tensors = {named(name): value for name, value in source(case).tensors.items()}
    plan = bert.plan(Source(folder, tensors, case["config"], {}))
    _, model, weights = built(1, folder)
    found = params(plan, model, tensors, *model.inputs())
    jax.tree.map(np.testing.assert_array_equal, found, weights)
    assert_goes_back(plan, found, tensors)


def test_which_tokenizer(folder, tmp_path):
    section = bert.plan(source(CASES[0], folder)).tokenizer
    assert section["name"] == "capjax.data.wordpiece"
    assert section["lowercase"]
    assert section["max_length"] == 23
    (tmp_path / "vocab.txt").touch()
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert not bert.plan(source(CASES[0], tmp_path)).tokenizer["lowercase"]
    (tmp_path / "vocab.txt").rename(tmp_path / "tokenizer.json")
    section = bert.plan(source(CASES[0], tmp_path)).tokenizer
    assert section["name"] == "capjax.data.tokenizer_json"
    assert section["bos"] == "[CLS]"


def test_what_cannot_be_imported_is_said(folder, tmp_path):
    case = CASES[0]

    def changed(**fields):
        return source(case | {"config": case["config"] | fields}, folder)

    with pytest.raises(NotThisFamily, match="model_type is 'roberta', not bert"):
        bert.plan(changed(model_type="roberta"))
    with pytest.raises(NotThisFamily, match=r"no config.json with num_attention_heads"):
        bert.plan(source(case | {"config": {}}, folder))
    with pytest.raises(NotThisFamily, match=r"no tensor 'embeddings.word_embeddings.weight'"):
        bert.plan(Source(folder, {}, {}, {}))
    with pytest.raises(UserError, match="hidden_act='tanh' is not supported"):
        bert.plan(changed(hidden_act="tanh"))
    with pytest.raises(UserError, match="position_embedding_type='relative_key' is not supported"):
        bert.plan(changed(position_embedding_type="relative_key"))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(UserError, match="pooling_mode_max_tokens is not supported"):
        bert.plan(source(case, tmp_path))
    plan, model, _ = built(0, folder)
    tensors = source(case).tensors
    del tensors["embeddings.LayerNorm.bias"]
    with pytest.raises(UserError, match=r"no tensor 'embeddings.LayerNorm.bias'"):
        params(plan, model, tensors, *model.inputs())


def test_misuse_of_the_model():
    def shapes(tokens=8, **overrides):
        model = Model(40, 8, "tiny", overrides, special_tokens=SPECIAL)
        return jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, tokens), np.int32))

    with pytest.raises(UserError, match="texts of 9 tokens exceed the model's max_positions=8"):
        shapes(9, max_positions=8)
    with pytest.raises(UserError, match="the embedding has 39 rows and the tokenizer 40 tokens"):
        shapes(rows=39)
    with pytest.raises(UserError, match="embedding='max' must be 'cls' or 'mean'"):
        shapes(embedding="max")
