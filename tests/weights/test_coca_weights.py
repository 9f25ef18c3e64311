"""OpenCLIP's CoCa: its numbers and captions, from its own files; misuse by name."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest
from peer_weights import assert_close, assert_goes_back, cases, params, source

from capjax import config as config_lib
from capjax.data import clip_bpe
from capjax.decode.greedy import greedy
from capjax.errors import UserError
from capjax.models import clip, open_clip_coca
from capjax.models.init import inputs_of
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.special_tokens import SpecialTokens
from capjax.tasks.coca import Task
from capjax.train_step import loss_and_grads
from capjax.weights import coca
from capjax.weights.plan import NotThisFamily

CASES = cases("coca")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders as the checkpoints of the cases lie in, but for their tensors."""
    folders = []
    for number, case in enumerate(CASES):
        folders.append(tmp_path_factory.mktemp(f"coca_{number}"))
        (folders[-1] / "open_clip_config.json").write_text(json.dumps(case["open_clip_config"]))
        (folders[-1] / "merges.txt").touch()
    return folders


@functools.cache
def built(number, folder):
    """(plan, model, parameters) of a case."""
    case = CASES[number]
    plan = coca.plan(source(case, folder))
    vocabulary = case["tensors"]["text.token_embedding.weight"][0]
    model = config_lib.instantiate(
        config_lib.as_config(dict(plan.model)),
        "Model",
        vocab_size=vocabulary,
        max_length=plan.tokenizer["max_length"],
        image_size=plan.image["image_size"],
        special_tokens=SpecialTokens(0, 3, vocabulary - 1, never_written=(3,)),
    )
    return plan, model, params(plan, model, source(case).tensors, *inputs_of(model))


@pytest.fixture(params=range(len(CASES)), ids=["gelu", "quick_gelu"])
def checkpoint(request, published):
    """(plan, model, parameters, case)."""
    number = request.param
    return *built(number, published[number]), CASES[number]


def test_outputs_and_gradient_are_open_clip_s(checkpoint):
    plan, model, weights, case = checkpoint
    image, tokens = peer_cases.picture(case["image"]), np.array(case["tokens"])

    def score(weights):
        features, text, logits = model.apply({"params": weights}, image, tokens)
        value = jnp.mean(logits**2) + jnp.sum(features.embedding * text)
        return value, (features, text, logits)

    run = jax.jit(jax.value_and_grad(score, has_aux=True))
    (value, (features, text, logits)), gradient = run(weights)
    expected = case["outputs"]
    assert_close(features.embedding, expected["image"])
    assert_close(features.context, expected["context"])
    assert_close(text, expected["text"])
    assert_close(logits, expected["logits"])
    np.testing.assert_allclose(value, expected["score"], rtol=1e-5)
    assert_close(gradient["image_tower"]["cls"], expected["gradient"], 1e-4)
    assert_goes_back(plan, weights, source(case).tensors)


def test_captions_are_open_clip_s_on_one_device_and_on_more(checkpoint):
    """The public loop reads all again for each token; ours keeps caches."""
    _, model, weights, case = checkpoint
    images = peer_cases.picture(case["image"])
    encode = jax.jit(lambda p, x: model.apply({"params": p}, x, method="encode_image").context)
    context = encode(weights, images)
    written = np.array(case["outputs"]["written"])[:, 1:]
    assert case["outputs"]["margin"] > 1e-3
    found = np.asarray(greedy(model, weights, context).tokens)
    np.testing.assert_array_equal(found[:, : written.shape[1]], written)
    mesh = make_mesh({"data": len(images)})
    with jax.set_mesh(mesh):
        spread = put_batch({"context": np.asarray(context)}, batch_sharding(mesh))
        again = greedy(model, weights, spread["context"])
    np.testing.assert_array_equal(again.tokens, found)


def test_steps_over_caches_equal_the_whole(checkpoint):
    """Rows with padding as a word: what follows it is hidden in both."""
    _, model, weights, case = checkpoint
    tokens = np.array(case["tokens"])
    queries, width = case["tensors"]["visual.attn_pool.query"]
    context = np.array(case["outputs"]["context"], np.float32)
    context = context.reshape(len(tokens), queries - 1, width)
    variables = {"params": weights}

    @jax.jit
    def whole():
        words = model.apply(variables, tokens, method="encode_text")[1]
        return model.apply(variables, words, context, method="caption_logits")

    @jax.jit
    def by_steps():
        def step(state, at):
            position, row = at
            logits, state = model.apply(variables, row, position, state, method="decode_step")
            return state, logits

        state = model.apply(variables, context, method="start_decoding")
        steps = jnp.arange(tokens.shape[1] - 1)
        return jax.lax.scan(step, state, (steps, jnp.asarray(tokens[:, :-1].T)))[1]

    assert_close(by_steps().transpose(1, 0, 2), whole())


def test_it_trains_alike_on_eight_devices_with_recomputed_blocks_and_on_one():
    shallow = dict(patch_size=8, image_layers=1, image_width=16, image_heads=2, text_width=16,
                   text_heads=2, decoder_heads=2, embedding_dim=16, text_layers=1,
                   decoder_layers=1, queries=3, pooler_heads=2)  # fmt: skip
    special = SpecialTokens(0, 3, 39, never_written=(3,))
    model = open_clip_coca.Model(40, 10, 16, overrides=shallow, special_tokens=special)
    batch = {
        "image": peer_cases.picture((8, 16, 16, 3)),
        "tokens": np.resize(np.array(CASES[0]["tokens"]), (8, 10)).astype(np.int32),
    }
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))["params"]
    weights = jax.tree_util.tree_map_with_path(
        lambda path, leaf: peer_cases.draw(jax.tree_util.keystr(path), leaf.shape), shapes
    )

    def compute(model, **sizes):
        task = Task(model=model)
        mesh = make_mesh(sizes)
        with jax.set_mesh(mesh):
            rows = put_batch(batch, batch_sharding(mesh))
            step = jax.jit(lambda p, b: loss_and_grads(task, p, b, jax.random.key(1)))
            return jax.device_get(step(weights, rows))

    loss, _, gradients = compute(model, data=1)
    got_loss, _, got_gradients = compute(model.clone(remat="full"), data=8)
    np.testing.assert_allclose(got_loss, loss, rtol=1e-5)
    noise = 1e-6 * max(np.abs(x).max() for x in jax.tree.leaves(gradients))
    jax.tree.map(
        lambda got, expected: np.testing.assert_allclose(got, expected, rtol=1e-4, atol=noise),
        got_gradients,
        gradients,
    )
    for path, value in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.abs(value).max() > 0, path


# CoCa of open_clip with the two published configurations.
@pytest.mark.parametrize(
    ("variant", "expected"), [("coca_ViT-B-32", 253_560_065), ("coca_ViT-L-14", 638_450_177)]
)
def test_published_sizes(variant, expected):
    size = open_clip_coca.VARIANTS[variant].image_size
    model = open_clip_coca.Model(
        clip.VOCABULARY, 76, size, variant, special_tokens=clip.SPECIAL_TOKENS
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))["params"]
    assert sum(x.size for x in jax.tree.leaves(shapes)) == expected


def test_the_plan_says_what_a_run_needs(published):
    plan = coca.plan(source(CASES[1], published[1]))
    assert plan.task == {"name": "capjax.tasks.coca"}
    assert plan.image == {"image_size": 36, "resize": "crop"}
    assert plan.tokenizer["name"] == clip_bpe.__name__
    assert plan.tokenizer["max_length"] == 13
    json.dumps([plan.model, plan.tokenizer, plan.image])
    # Without its config: GELU, and heads 64 wide, as both published ones have.
    (published[1] / "open_clip_config.json").unlink()
    overrides = coca.plan(source(CASES[1], published[1])).model["overrides"]
    assert "activation" not in overrides
    assert overrides["text_width"] == 48


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        (
            "vision_cfg",
            "no_ln_pre",
            True,
            "vision_cfg, says no_ln_pre=True, and .* no_ln_pre=False: choose",
        ),
        ("text_cfg", "correct_cls_mask", True, "text_cfg, says correct_cls_mask=True"),
        ("text_cfg", "pad_id", 1, "text_cfg, says pad_id=1"),
        ("vision_cfg", "attentional_pool", "cascade", "attentional_pool='cascade'"),
        ("multimodal_cfg", "ls_init_value", 0.1, "multimodal_cfg, says ls_init_value=0.1"),
    ],
)
def test_what_cannot_be_imported_is_said(tmp_path, section, field, value, message):
    config = json.loads(json.dumps(CASES[0]["open_clip_config"]))
    config["model_cfg"][section][field] = value
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "merges.txt").touch()
    with pytest.raises(UserError, match=message):
        coca.plan(source(CASES[0], tmp_path))


def test_other_tensors_are_named(published, tmp_path):
    case = CASES[0]
    tensors = {name: shape for name, shape in case["tensors"].items() if name != "text.cls_emb"}
    with pytest.raises(NotThisFamily, match=r"no tensor 'text.cls_emb'"):
        coca.plan(source(case | {"tensors": tensors}, published[0]))
    with pytest.raises(UserError, match=r"tokenizer of .* is not there .*merges.txt"):
        coca.plan(source(case, tmp_path))
    plan, model, _ = built(0, published[0])
    missing = source(case).tensors
    del missing["text_decoder.cross_attn.1.ln_1_kv.bias"]
    with pytest.raises(UserError, match=r"no tensor 'text_decoder.cross_attn.1.ln_1_kv.bias'"):
        params(plan, model, missing, *inputs_of(model))
    wider = case["tensors"] | {"text_decoder.resblocks.0.mlp.c_fc.weight": [96, 32]}
    with pytest.raises(UserError, match="is 96 wide, not four times 32"):
        coca.plan(source(case | {"tensors": wider}, published[0]))


def test_rows_that_are_too_long_are_named(published):
    _, model, weights = built(0, published[0])
    with pytest.raises(UserError, match="texts of 11 tokens exceed the model's max_length=10"):
        model.apply({"params": weights}, np.zeros((1, 11), np.int32), method="embed_text")
