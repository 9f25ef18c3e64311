"""SigLIP as transformers and as big_vision publish it: their numbers; misuse by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest
from peer_weights import assert_close, assert_goes_back, cases, params, source

from capjax import config as config_lib
from capjax.errors import UserError
from capjax.models.init import inputs_of
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.special_tokens import SpecialTokens
from capjax.tasks.contrastive import Task
from capjax.weights import siglip, siglip_big_vision
from capjax.weights.plan import NotThisFamily, Source

CASES = cases("siglip")
IDS = ["transformers", "transformers, gelu", "big_vision", "big_vision, stacked"]
FAMILIES = {"transformers": siglip, "big_vision": siglip_big_vision}
VOCABULARIES = (
    "text_model.embeddings.token_embedding.weight",
    "params/txt/Embed_0/embedding",
    "txt/Embed_0/embedding",
)


def plan_of(case, folder):
    """The case's plan; its tokenizer's file is empty."""
    for name in ("spiece.model", "gemma_tokenizer.model"):
        (folder / name).touch()
    return FAMILIES[case["form"]].plan(source(case, folder))


def built(case, folder):
    """(plan, model, parameters) of a case."""
    plan = plan_of(case, folder)
    vocabulary = next(case["tensors"][n][0] for n in VOCABULARIES if n in case["tensors"])
    model = config_lib.instantiate(
        config_lib.as_config(dict(plan.model)),
        "Model",
        vocab_size=vocabulary,
        max_length=plan.tokenizer["max_length"],
        image_size=plan.image["image_size"],
        special_tokens=SpecialTokens(pad=1, bos=None, eos=1),
    )
    return plan, model, params(plan, model, source(case).tensors, *inputs_of(model))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_embeddings_logits_and_gradient_are_those_of_the_library(case, tmp_path):
    plan, model, weights = built(case, tmp_path)
    batch = {
        "image": peer_cases.picture(case["image"]),
        "tokens": np.array(case["tokens"], np.int32),
    }

    def score(weights, batch):
        image, text = model.apply({"params": weights}, batch["image"], batch["tokens"])
        logits = jnp.exp(weights["logit_scale"]) * image @ text.T + weights["logit_bias"]
        return jnp.trace(logits), (image, text, logits)

    run = jax.jit(jax.value_and_grad(score, has_aux=True))
    expected = case["outputs"]
    for devices in (1, len(batch["image"])):
        mesh = make_mesh({"data": devices})
        with jax.set_mesh(mesh):
            rows = put_batch(batch, batch_sharding(mesh))
            (_, (image, text, logits)), gradient = run(weights, rows)
        assert_close(image, expected["image"])
        assert_close(text, expected["text"])
        assert_close(logits, expected["logits"])
        scale = gradient["text_tower"]["stack"]["norm"]["scale"]
        assert_close(scale, expected["gradient"], 1e-4)
    assert_goes_back(plan, weights, source(case).tensors)
    Task(model=model, **{k: v for k, v in plan.task.items() if k != "name"})


def test_the_plan_says_what_a_run_needs(tmp_path):
    plan = plan_of(CASES[0], tmp_path)
    assert plan.image == {"image_size": 32, "resize": "squash"}
    assert plan.tokenizer["clean"] == "lower_without_punctuation"
    assert plan.tokenizer["max_length"] == 5
    assert plan_of(CASES[2], tmp_path).tokenizer["clean"] == "lower_ascii"
    json.dumps([plan.model, plan.tokenizer, plan.image, plan.task])


def shaped(case, **tensors):
    """A checkpoint of these shapes, whose values nobody reads."""
    shapes = case["tensors"] | tensors
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("number", [0, 3], ids=["transformers", "big_vision"])
def test_gemma_s_vocabulary_tells_siglip_2(tmp_path, number):
    case = CASES[number]
    name = next(name for name in VOCABULARIES if name in case["tensors"])
    width = case["tensors"][name][1]
    plan_of(case, tmp_path)  # puts the tokenizers' files there
    found = Source(tmp_path, shaped(case, **{name: [256_000, width]}), case.get("config", {}), {})
    plan = FAMILIES[case["form"]].plan(found)
    assert plan.image["resize"] == "squash_bilinear"
    assert plan.tokenizer["path"] == str(tmp_path / "gemma_tokenizer.model")
    assert (plan.tokenizer["clean"], plan.tokenizer["pad"]) == ("lower", "<pad>")
    if case["form"] == "transformers":
        published = {"image_processor_type": "SiglipImageProcessor", "resample": 2}
        published["size"] = {"height": 32, "width": 32}
        found = Source(tmp_path, found.tensors, case["config"], published)
        assert siglip.plan(found).image == {"image_size": 32, "resize": "squash_bilinear"}


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ("text_config", {"layer_norm_eps": 1e-5}, "text_config, says layer_norm_eps=1e-05"),
        ("vision_config", {"hidden_act": "gelu"}, "'gelu_pytorch_tanh' for texts and 'gelu'"),
        ("vision_config", {"num_attention_heads": 2}, "heads=4 for texts and 2 for pictures"),
    ],
)
def test_what_the_config_may_not_say(tmp_path, section, fields, message):
    config = json.loads(json.dumps(CASES[0]["config"]))
    config[section] |= fields
    with pytest.raises(UserError, match=message):
        plan_of(CASES[0] | {"config": config}, tmp_path)


def test_what_cannot_be_imported_is_said(tmp_path):
    library, arrays = CASES[0], CASES[2]
    naflex = library | {"config": library["config"] | {"model_type": "siglip2"}}
    with pytest.raises(UserError, match=r"SigLIP 2's NaFlex model, .* choose one of a fixed size"):
        plan_of(naflex, tmp_path)
    with pytest.raises(UserError, match=r"needs its config.json with text_config beside"):
        plan_of(library | {"config": {}}, tmp_path)
    with pytest.raises(NotThisFamily, match="no tensor 'logit_bias'"):
        plan_of(arrays | {"form": "transformers"}, tmp_path)
    with pytest.raises(NotThisFamily, match="no tensor 't'"):
        plan_of(library | {"form": "big_vision"}, tmp_path)
    query = "params/img/Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"
    with pytest.raises(NotThisFamily, match=r"kernel of queries in .* has the shape \(48, 48\)"):
        siglip_big_vision.plan(Source(tmp_path, shaped(arrays, **{query: [48, 48]}), {}, {}))
    with pytest.raises(UserError, match="towers differ, heads=4 for texts and 2 for pictures"):
        siglip_big_vision.plan(Source(tmp_path, shaped(arrays, **{query: [48, 2, 24]}), {}, {}))


def test_a_layer_that_is_missing_is_named(tmp_path):
    plan, model, _ = built(CASES[2], tmp_path)
    tensors = source(CASES[2]).tensors
    del tensors["params/txt/Encoder_0/encoderblock_1/MlpBlock_0/Dense_1/bias"]
    with pytest.raises(UserError, match="no tensor 'params/txt/Encoder_0/encoderblock_1/MlpBlock"):
        params(plan, model, tensors, *inputs_of(model))
