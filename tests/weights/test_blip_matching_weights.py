"""BLIP's matching scores: the numbers of the transformers library's, and which BLIPs are which."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest
from peer_weights import assert_close, assert_goes_back, cases, params, publish, source

from capjax import config as config_lib
from capjax import runs
from capjax.data import wordpiece
from capjax.errors import UserError
from capjax.models.init import inputs_of
from capjax.weights import blip, blip_matching, families
from capjax.weights.exporting import export
from capjax.weights.files import open_tensors
from capjax.weights.importing import import_checkpoint
from capjax.weights.plan import NotThisFamily
from capjax.weights.verify import differences

pytest.importorskip("tokenizers", reason="needs the extra text: pip install ftfy regex tokenizers")

(CASE,) = cases("blip_matching")
CAPTIONER = cases("blip")[0]


def vocabulary(folder, lines):
    """A vocab.txt in the folder, which is returned; [DEC] and [ENC] are not in it."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(5, lines))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return vocabulary(tmp_path_factory.mktemp("matching"), 58)


@pytest.fixture(scope="module")
def imported(folder):
    """(plan, model, parameters)."""
    plan = blip_matching.plan(source(CASE, folder))
    fields = {key: value for key, value in plan.tokenizer.items() if key != "name"}
    tokenizer = wordpiece.make(None, **fields)
    model = config_lib.instantiate(
        config_lib.as_config(dict(plan.model)),
        "Model",
        vocab_size=tokenizer.vocab_size,
        max_length=tokenizer.max_length,
        image_size=plan.image["image_size"],
        special_tokens=tokenizer.special_tokens,
    )
    return plan, model, params(plan, model, peer_cases.tensors(CASE), *inputs_of(model))


@functools.partial(jax.jit, static_argnums=0)
def answers(model, params, image, tokens):
    """(logits [B,2], cosines [B,B], gradients of the sum of matches over non-matches)."""

    def score(params):
        pictures, texts, logits = model.apply({"params": params}, image, tokens)
        return (logits[:, 1] - logits[:, 0]).sum(), (logits, pictures @ texts.T)

    (_, outputs), gradient = jax.value_and_grad(score, has_aux=True)(params)
    return *outputs, gradient


def test_scores_and_gradients_are_the_publics(imported):
    _, model, ours = imported
    image, tokens = peer_cases.picture(CASE["image"]), jnp.array(CASE["tokens"])
    logits, cosines, gradient = answers(model, ours, image, tokens)
    theirs = CASE["outputs"]
    assert_close(logits, theirs["logits"])
    assert_close(cosines, theirs["cosines"])
    assert_close(gradient["image_tower"]["cls"], theirs["gradient"])
    kernel = gradient["text_encoder"]["stack"]["blocks_0"]["cross_attention"]["key"]["kernel"]
    rows = np.reshape(kernel, (48, 32))[:, :2].T  # two outputs of a matrix of [outputs, inputs]
    assert_close(rows, theirs["kernel_gradient"])


def test_tensors_go_back_and_the_temperature_is_new(imported):
    plan, _, ours = imported
    assert_goes_back(plan, ours, peer_cases.tensors(CASE))
    assert float(ours["logit_scale"]) == pytest.approx(np.log(1 / 0.07), rel=1e-6)


def test_the_plan(imported):
    plan, model, _ = imported
    assert plan.model["embedding_dim"] == 24
    assert plan.image == {"image_size": 32, "resize": "squash"}
    assert plan.task == {"name": "capjax.tasks.matching"}
    assert plan.tokenizer["max_length"] == 24  # as many as there are positions
    special = model.special_tokens
    assert (special.pad, special.bos, special.eos, special.enc) == (0, 2, 3, 59)
    assert special.never_written == (0, 1, 2, 4, 58, 59)


def test_the_published_size_needs_no_overrides(tmp_path):
    """With the shapes of blip-itm-base-coco, no tensor is made."""
    layers = range(12)
    text, vision = "text_encoder.e", "vision_model.e"
    shapes = {
        f"{vision}mbeddings.class_embedding": (1, 1, 768),
        f"{vision}mbeddings.position_embedding": (1, 577, 768),
        f"{vision}mbeddings.patch_embedding.weight": (768, 3, 16, 16),
        f"{vision}ncoder.layers.0.mlp.fc1.weight": (3072, 768),
        f"{text}mbeddings.position_embeddings.weight": (512, 768),
        f"{text}mbeddings.word_embeddings.weight": (30_524, 768),
        f"{text}ncoder.layer.0.intermediate.dense.weight": (3072, 768),
        "vision_proj.weight": (256, 768),
        "itm_head.weight": (2, 768),
        **{f"{vision}ncoder.layers.{i}.layer_norm1.weight": (768,) for i in layers},
        **{f"{text}ncoder.layer.{i}.attention.self.query.weight": (768, 768) for i in layers},
    }
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    heads = {"num_attention_heads": 12}
    config = {"model_type": "blip", "vision_config": heads, "text_config": heads}
    base = source(CASE, vocabulary(tmp_path, 30_522))
    plan = families.recognise(type(base)(base.folder, tensors, config, {}))
    assert plan.family == "blip_matching"
    assert plan.model == {"name": "capjax.models.blip_matching", "variant": "base", "overrides": {}}
    assert plan.image["image_size"] == 384
    assert plan.tokenizer["max_length"] == 35


def test_each_blip_finds_its_family(folder):
    assert families.recognise(source(CASE, folder)).family == "blip_matching"
    with pytest.raises(NotThisFamily, match="it is a BlipForImageTextRetrieval"):
        blip.plan(source(CASE, folder))
    with pytest.raises(NotThisFamily, match="it is a BlipForConditionalGeneration"):
        blip_matching.plan(source(CAPTIONER, folder))
    with pytest.raises(NotThisFamily, match="model_type is 'blip-2', not blip"):
        blip_matching.plan(type(source(CASE))(folder, {}, {"model_type": "blip-2"}, {}))
    answering = source(CASE, folder)
    tensors = {n: x for n, x in answering.tensors.items() if "_proj" not in n and "itm" not in n}
    tensors["text_decoder.bert.embeddings.word_embeddings.weight"] = np.zeros((60, 32), np.float32)
    config = CASE["config"] | {"architectures": ["BlipForQuestionAnswering"]}
    for plan in (blip.plan, blip_matching.plan, families.recognise):
        with pytest.raises(
            UserError,
            match=r"\(BlipForQuestionAnswering\) is no captioner and scores no pairs: import",
        ):
            plan(type(answering)(folder, tensors, config, {}))


def test_a_vocabulary_that_does_not_fit_is_named(tmp_path):
    with pytest.raises(UserError, match=r"the embedding has 60 rows and .* 42 tokens"):
        blip_matching.plan(source(CASE, vocabulary(tmp_path, 40)))


def test_there_and_back(tmp_path):
    """As a run it is opened, verified and exported: all that was published, and no more."""
    (tmp_path / "published").mkdir()
    vocabulary(tmp_path / "published", 58)
    publish(tmp_path / "published", peer_cases.tensors(CASE), CASE["config"])
    import_checkpoint(tmp_path / "published", tmp_path / "run")
    run = runs.open_run(tmp_path / "run")
    assert float(run.params["logit_scale"]) == pytest.approx(np.log(1 / 0.07), rel=1e-6)
    assert run.tokenizer.encode("w7")[:4].tolist() == [2, 7, 3, 0]
    found = differences(tmp_path / "run", tmp_path / "published")
    assert len(found) == len(CASE["tensors"])
    assert not any(difference.largest for difference in found)
    export(tmp_path / "run", tmp_path / "back")
    back = open_tensors(tmp_path / "back")
    assert sorted(back) == sorted(CASE["tensors"])
    name = "text_encoder.encoder.layer.1.crossattention.self.value.weight"
    np.testing.assert_array_equal(back[name], peer_cases.tensors(CASE)[name])
