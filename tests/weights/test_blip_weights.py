"""BLIP's captioner: the outputs and captions of the transformers library's, and the way back."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest
from peer_weights import assert_close, assert_goes_back, cases, params, source

from capjax.data import wordpiece
from capjax.decode.greedy import greedy
from capjax.errors import UserError
from capjax.models.blip import Model
from capjax.models.coca import unit
from capjax.parallel.mesh import batch_sharding, make_mesh
from capjax.weights import blip
from capjax.weights.plan import NotThisFamily

pytest.importorskip("tokenizers", reason="needs the extra text: pip install ftfy regex tokenizers")

CASES = cases("blip")
TIED, UNTIED = range(2)
BOTH = pytest.mark.parametrize("number", [TIED, UNTIED], ids=["tied", "untied"])
HEAD = "text_decoder.cls.predictions"
WORDS = "text_decoder.bert.embeddings.word_embeddings.weight"


def vocabulary(number):
    """A vocab.txt of two lines less than the embedding has rows, with [SEP] where the case has."""
    text = CASES[number]["config"]["text_config"]
    pieces = [f"w{i}" for i in range(text["vocab_size"] - 2)]
    pieces[:3], pieces[4], pieces[text["sep_token_id"]] = (
        ["[PAD]", "[UNK]", "[CLS]"],
        "[MASK]",
        "[SEP]",
    )
    return "\n".join(pieces) + "\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """`checkpoint(number, **fields)`: the case as a `Source` with a vocabulary beside it."""

    def make(number, **fields):
        folder = tmp_path_factory.mktemp("checkpoint")
        (folder / "vocab.txt").write_text(vocabulary(number))
        return dataclasses.replace(source(CASES[number], folder), **fields)

    return make


@pytest.fixture(scope="module")
def imported(checkpoint):
    """`imported(number)`: (plan, model, parameters, pictures, tokens, outputs of the call)."""

    @functools.cache
    def read(number):
        case = CASES[number]
        plan = blip.plan(checkpoint(number))
        model = model_of(plan)
        image, tokens = peer_cases.picture(case["image"]), jnp.array(case["tokens"])
        ours = params(plan, model, peer_cases.tensors(case), image, tokens)
        return (
            plan,
            model,
            ours,
            image,
            tokens,
            jax.jit(model.apply)({"params": ours}, image, tokens),
        )

    return read


def model_of(plan, max_length=13):
    """The plan's model for its tokenizer; 13 tokens are what the captions were cut at."""
    tokenizer = tokenizer_of(plan)
    return Model(
        tokenizer.vocab_size,
        max_length,
        plan.image["image_size"],
        plan.model["variant"],
        plan.model["overrides"],
        tokenizer.special_tokens,
    )


def tokenizer_of(plan):
    fields = {key: value for key, value in plan.tokenizer.items() if key != "name"}
    return wordpiece.make(None, **fields)


@BOTH
def test_outputs_are_the_publics(imported, number):
    _, _, _, _, _, (features, logits) = imported(number)
    theirs = CASES[number]["outputs"]
    assert_close(features.context, theirs["states"])
    states = np.reshape(theirs["states"], features.context.shape)
    assert_close(features.embedding, unit(states[:, 0]))
    assert_close(logits, theirs["logits"])


@BOTH
def test_captions_are_the_publics(imported, number):
    _, model, ours, _, _, (features, _) = imported(number)
    written = np.array(CASES[number]["outputs"]["written"])
    assert len(set(written[:, 1:].ravel())) > 5
    found = greedy(model, ours, features.context)
    np.testing.assert_array_equal(found.tokens, written[:, 1:])
    eos = model.special_tokens.eos
    np.testing.assert_array_equal(found.truncated, ~(written == eos).any(1))
    assert 0 < found.truncated.sum() < len(written)


def test_guidance_reads_zeros_as_no_picture(imported):
    _, model, ours, _, _, (features, _) = imported(TIED)
    plain = greedy(model, ours, features.context)
    guided = greedy(model, ours, features.context, 3.0)
    assert np.isfinite(guided.log_prob).all()
    assert (guided.tokens != plain.tokens).any()
    nothing = jnp.zeros_like(features.context)
    # Without a picture, guidance of any strength has nowhere to go.
    np.testing.assert_array_equal(
        greedy(model, ours, nothing, 3.0).tokens, greedy(model, ours, nothing).tokens
    )


@BOTH
def test_steps_are_the_whole_rows(imported, number):
    _, model, ours, _, tokens, (features, logits) = imported(number)
    state = model.apply({"params": ours}, features.context, method="start_decoding")

    @jax.jit
    def step(token, position, state):
        return model.apply({"params": ours}, token, position, state, method="decode_step")

    for position in range(logits.shape[1]):
        one, state = step(tokens[:, position], jnp.int32(position), state)
        np.testing.assert_allclose(one, logits[:, position], atol=2e-5)


@BOTH
def test_tensors_go_back(imported, number):
    plan, _, ours, _, _, _ = imported(number)
    assert_goes_back(plan, ours, peer_cases.tensors(CASES[number]))


def test_gradient_is_the_publics(imported):
    _, model, ours, image, tokens, _ = imported(UNTIED)

    @jax.jit
    @jax.value_and_grad
    def score(params):
        return (model.apply({"params": params}, image, tokens)[1] ** 2).mean()

    value, gradient = score(ours)
    theirs = CASES[UNTIED]["outputs"]
    assert value == pytest.approx(theirs["score"], rel=1e-5)
    assert_close(gradient["image_tower"]["cls"], theirs["gradient"])


def test_eight_devices_give_what_one_gives(imported):
    _, model, ours, image, tokens, (_, one) = imported(TIED)
    mesh = make_mesh({"data": 8})
    with jax.set_mesh(mesh):
        placed = jax.device_put(
            (np.concatenate([image] * 4), np.concatenate([tokens] * 4)), batch_sharding(mesh)
        )
        _, logits = jax.jit(model.apply)({"params": ours}, *placed)
    assert len(logits.sharding.device_set) == 8
    np.testing.assert_allclose(logits[-len(image) :], one, atol=1e-5)


def test_the_plan_names_begin_and_end_of_captions(imported):
    plan, model, *_ = imported(TIED)
    tokenizer = tokenizer_of(plan)
    assert tokenizer.vocab_size == 60
    special = model.special_tokens
    assert (special.pad, special.bos, special.eos) == (0, 58, 46)
    assert special.never_written == (0, 1, 2, 4, 58, 59)
    assert tokenizer.encode("w9 w7")[:5].tolist() == [58, 9, 7, 46, 0]
    assert plan.tokenizer["max_length"] == 25  # the decoder has 24 positions, EOS is not read
    assert plan.image == {"image_size": 32, "resize": "squash"}
    assert plan.task == {"name": "capjax.tasks.caption"}


def test_the_published_sizes_need_no_overrides(checkpoint):
    """With the shapes of blip-image-captioning-base and -large, no tensor is made."""
    for variant, layers, width, heads in (("base", 12, 768, 12), ("large", 24, 1024, 16)):
        shapes = published_shapes(layers, width)
        tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
        config = {
            "model_type": "blip",
            "vision_config": {"num_attention_heads": heads},
            "text_config": {"num_attention_heads": 12},
        }
        found = checkpoint(TIED, tensors=tensors, config=config)
        rest = [f"[unused{i}]" for i in range(30_522 - 5)]
        rest[99:99] = ["[UNK]", "[CLS]"]
        pieces = ["[PAD]", *rest[:101], "[SEP]", "[MASK]", *rest[101:]]
        (found.folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
        plan = blip.plan(found)
        assert plan.model == {"name": "capjax.models.blip", "variant": variant, "overrides": {}}
        special = tokenizer_of(plan).special_tokens
        assert (special.pad, special.bos, special.eos) == (0, 30_522, 102)
        assert plan.image["image_size"] == 384
        assert plan.tokenizer["max_length"] == 40


def published_shapes(layers, width):
    """Of the tensors whose shapes tell the sizes."""
    vision, text = "vision_model.e", "text_decoder.bert.e"
    shapes = {
        f"{vision}mbeddings.class_embedding": (1, 1, width),
        f"{vision}mbeddings.position_embedding": (1, 577, width),
        f"{vision}mbeddings.patch_embedding.weight": (width, 3, 16, 16),
        f"{vision}ncoder.layers.0.mlp.fc1.weight": (4 * width, width),
        f"{text}mbeddings.position_embeddings.weight": (512, 768),
        f"{text}ncoder.layer.0.intermediate.dense.weight": (3072, 768),
        WORDS: (30_524, 768),
    }
    for i in range(layers):
        shapes[f"{vision}ncoder.layers.{i}.layer_norm1.weight"] = (width,)
    for i in range(12):
        shapes[f"{text}ncoder.layer.{i}.attention.self.query.weight"] = (768, 768)
    return shapes


def test_a_file_may_hold_what_is_tied_twice(checkpoint):
    tensors = peer_cases.tensors(CASES[TIED])
    # Older files hold both names of the words' matrix and of the head's bias, and constants.
    tensors |= {
        f"{HEAD}.decoder.weight": tensors[WORDS],
        f"{HEAD}.decoder.bias": tensors[f"{HEAD}.bias"],
        "text_decoder.bert.embeddings.position_ids": np.arange(24)[None],
    }
    plan = blip.plan(checkpoint(TIED, tensors=tensors))
    model = model_of(plan)
    image, tokens = peer_cases.picture(CASES[TIED]["image"]), jnp.array(CASES[TIED]["tokens"])
    ours = params(plan, model, tensors, image, tokens)
    assert "head" not in ours["text_decoder"]
    np.testing.assert_array_equal(ours["text_decoder"]["head_bias"], tensors[f"{HEAD}.bias"])
    assert {entry.theirs for entry in plan.table} & {f"{HEAD}.bias", f"{HEAD}.decoder.bias"} == {
        f"{HEAD}.bias"
    }
    # Two that differ are two, whatever config.json says.
    apart = tensors | {f"{HEAD}.decoder.weight": 2 * tensors[WORDS]}
    assert blip.plan(checkpoint(TIED, tensors=apart)).model["overrides"]["tied"] is False
    apart = tensors | {f"{HEAD}.bias": 2 * tensors[f"{HEAD}.bias"]}
    plan = blip.plan(checkpoint(TIED, tensors=apart))
    ours = params(plan, model, apart, image, tokens)
    np.testing.assert_array_equal(
        ours["text_decoder"]["head_bias"], tensors[f"{HEAD}.decoder.bias"]
    )


def test_other_blips_are_refused(checkpoint):
    tensors = peer_cases.tensors(CASES[TIED])
    tensors["text_encoder.embeddings.word_embeddings.weight"] = np.zeros((60, 32), np.float32)
    config = CASES[TIED]["config"] | {"architectures": ["BlipForQuestionAnswering"]}
    with pytest.raises(UserError, match=r"this BLIP \(BlipForQuestionAnswering\) is no captioner"):
        blip.plan(checkpoint(TIED, tensors=tensors, config=config))
    with pytest.raises(NotThisFamily, match="model_type is 'blip-2', not blip"):
        blip.plan(checkpoint(TIED, config={"model_type": "blip-2"}))
    with pytest.raises(
        NotThisFamily, match=r"no tensor 'vision_model\.embeddings\.class_embedding'"
    ):
        blip.plan(checkpoint(TIED, tensors={}, config={}))


def test_what_does_not_belong_together_is_named(checkpoint):
    config = CASES[TIED]["config"]

    def with_text(**fields):
        return checkpoint(TIED, config=config | {"text_config": config["text_config"] | fields})

    with pytest.raises(UserError, match=r"its config\.json with vision_config and text_config"):
        blip.plan(checkpoint(TIED, config={}))
    with pytest.raises(UserError, match="hidden_act='mish' is not supported"):
        blip.plan(with_text(hidden_act="mish"))
    with pytest.raises(UserError, match="bos_token_id=30522 is outside the vocabulary of 60"):
        blip.plan(with_text(bos_token_id=30_522))
    with pytest.raises(UserError, match=r"pad_token_id=1 is '\[UNK\]'"):
        blip.plan(with_text(pad_token_id=1))
    short = checkpoint(TIED)
    (short.folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(UserError, match=r"the embedding has 60 rows and .* 6 tokens"):
        blip.plan(short)
    (short.folder / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"the tokenizer of .* is not there \(vocab\.txt or tok"):
        blip.plan(short)
    half = {"image_processor_type": "BlipImageProcessor", "size": {"height": 32, "width": 32}}
    assert blip.plan(checkpoint(TIED, preprocessor=half)).image["resize"] == "squash"
    half |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    with pytest.raises(UserError, match="image_mean is that of 'half' is not supported"):
        blip.plan(checkpoint(TIED, preprocessor=half))


def test_missing_tensors_and_long_rows_are_named(imported, checkpoint):
    plan, model, ours, image, tokens, _ = imported(TIED)
    tensors = peer_cases.tensors(CASES[TIED])
    del tensors["text_decoder.bert.encoder.layer.1.crossattention.self.key.bias"]
    with pytest.raises(UserError, match=r"no tensor '.*layer\.1\.crossattention\.self\.key\.bias'"):
        params(plan, model, tensors, image, tokens)
    with pytest.raises(UserError, match="rows of 26 tokens exceed BLIP's max_positions=24"):
        model.clone(max_length=26).apply({"params": ours}, image, tokens)
