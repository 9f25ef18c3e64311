"""CLIP in its published forms: the numbers of open_clip and of transformers; misuse by name."""

import functools
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
from capjax.weights import clip, clip_transformers, coca, siglip
from capjax.weights.plan import NotThisFamily, Source

CASES = cases("clip")
IDS = ["vit", "vit, quick_gelu", "resnet", "transformers", "transformers, gelu"]
FAMILIES = {"openai": clip, "transformers": clip_transformers}


def folder_of(case, folder):
    """`folder` with the files that lie beside the tensors of a case."""
    (folder / "merges.txt").touch()
    if "open_clip_config" in case:
        (folder / "open_clip_config.json").write_text(json.dumps(case["open_clip_config"]))
    return folder


def plan_of(case, folder):
    """The case's plan."""
    return FAMILIES[case["form"]].plan(source(case, folder_of(case, folder)))


@functools.cache
def built(number, folder):
    """(plan, model, parameters) of a case."""
    case = CASES[number]
    plan = plan_of(case, folder)
    table = {"openai": "token_embedding.weight"}.get(
        case["form"], "text_model.embeddings.token_embedding.weight"
    )
    vocabulary = case["tensors"][table][0]
    model = config_lib.instantiate(
        config_lib.as_config(dict(plan.model)),
        "Model",
        vocab_size=vocabulary,
        max_length=plan.tokenizer["max_length"],
        image_size=plan.image["image_size"],
        special_tokens=SpecialTokens(0, vocabulary - 2, vocabulary - 1),
    )
    return plan, model, params(plan, model, source(case).tensors, *inputs_of(model))


@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
def test_embeddings_and_gradient_are_those_of_the_library(number, tmp_path_factory):
    case = CASES[number]
    plan, model, weights = built(number, tmp_path_factory.mktemp("clip"))
    batch = {
        "image": peer_cases.picture(case["image"]),
        "tokens": np.array(case["tokens"], np.int32),
    }

    def score(weights, batch):
        image, text = model.apply({"params": weights}, batch["image"], batch["tokens"])
        return jnp.sum(image * text) * jnp.exp(weights["logit_scale"]), (image, text)

    run = jax.jit(jax.value_and_grad(score, has_aux=True))
    expected = case["outputs"]
    for devices in (1, len(batch["image"])):
        mesh = make_mesh({"data": devices})
        with jax.set_mesh(mesh):
            rows = put_batch(batch, batch_sharding(mesh))
            (value, (image, text)), gradient = run(weights, rows)
        assert_close(image, expected["image"])
        assert_close(text, expected["text"])
        np.testing.assert_allclose(value, expected["score"], rtol=1e-4)
        assert_close(gradient["text_tower"]["positions"], expected["gradient"], 1e-4)
    assert_goes_back(plan, weights, source(case).tensors)


def test_the_plan_says_what_a_run_needs(tmp_path):
    plan = plan_of(CASES[4], tmp_path)
    assert plan.model["overrides"]["activation"] == "gelu"
    assert plan.image == {"image_size": 40, "resize": "crop"}
    assert plan.tokenizer["max_length"] == 7
    published = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}}
    published["crop_size"] = 40
    case = source(CASES[4], tmp_path)
    assert _with(case, preprocessor=published).image["resize"] == "crop_floor"
    with pytest.raises(UserError, match="asks for image_size=224, and the model takes 40: it"):
        _with(case, preprocessor=published | {"size": 224, "crop_size": 224})
    json.dumps([plan.model, plan.tokenizer, plan.image, plan.task])


def _with(found, **fields):
    """The plan of a checkpoint of transformers with other files beside it."""
    parts = (
        dict(folder=found.folder, tensors=found.tensors, config=found.config, preprocessor={})
        | fields
    )
    return clip_transformers.plan(Source(**parts))


def test_the_activation_is_never_guessed(tmp_path):
    """OpenAI's own files are known by what they hold; open_clip's need their config."""
    (tmp_path / "merges.txt").touch()
    found = source(CASES[0], tmp_path)
    with pytest.raises(UserError, match=r"GELU or QuickGELU: put its open_clip_config.json"):
        clip.plan(found)
    openai = {"input_resolution": np.array(32), "context_length": np.array(9)}
    openai = Source(tmp_path, found.tensors | openai, {}, {})
    assert "activation" not in clip.plan(openai).model["overrides"]
    folder_of(CASES[0], tmp_path)
    assert clip.plan(found).model["overrides"]["activation"] == "gelu"
    with pytest.raises(UserError, match=r"OpenAI's own, .* says quick_gelu=False: remove it"):
        clip.plan(openai)
    folder_of(CASES[1], tmp_path)
    assert "activation" not in clip.plan(openai).model["overrides"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"preprocess_cfg": {"mean": [0.5] * 3}}, "says mean=.0.5, 0.5, 0.5., and CLIP's towers"),
        ({"preprocess_cfg": {"resize_mode": "longest"}}, "resize_mode='longest' with interp"),
        ({"vision_cfg": {"timm_model_name": "vit"}}, "vision_cfg, says timm_model_name='vit'"),
        ({"text_cfg": {"pool_type": "last"}}, "text_cfg, says pool_type='last', and .*'argmax'"),
        (
            {"text_cfg": {"hf_tokenizer_name": "x/y", "vocab_size": 99}},
            "hf_tokenizer_name='x/y', which is not CLIP's tokenizer",
        ),
    ],
)
def test_what_open_clip_s_config_may_not_say(tmp_path, sections, message):
    config = json.loads(json.dumps(CASES[0]["open_clip_config"]))
    for name, fields in sections.items():
        place = config if name == "preprocess_cfg" else config["model_cfg"]
        place[name] = place.get(name, {}) | fields
    with pytest.raises(UserError, match=message):
        plan_of(CASES[0] | {"open_clip_config": config}, tmp_path)


def test_open_clip_s_resizing_is_read(tmp_path):
    config = CASES[0]["open_clip_config"] | {"preprocess_cfg": {"resize_mode": "squash"}}
    assert plan_of(CASES[0] | {"open_clip_config": config}, tmp_path).image["resize"] == "squash"


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ("text_config", {"hidden_act": "relu"}, "hidden_act='relu', which capjax's model does not"),
        ("vision_config", {"hidden_act": "gelu"}, "'quick_gelu' for texts and 'gelu' for pict"),
        ("text_config", {"layer_norm_eps": 1e-6}, "text_config, says layer_norm_eps=1e-06"),
        ("text_config", {"eos_token_id": 5}, "eos_token_id=5, and CLIP's tokenizer ends .* 39"),
    ],
)
def test_what_the_library_s_config_may_not_say(tmp_path, section, fields, message):
    config = json.loads(json.dumps(CASES[3]["config"]))
    config[section] |= fields
    with pytest.raises(UserError, match=message):
        plan_of(CASES[3] | {"config": config}, tmp_path)


def test_an_older_config_s_second_copy_replaces_the_first(tmp_path):
    config = json.loads(json.dumps(CASES[3]["config"]))
    config["text_config_dict"] = config["text_config"] | {"num_attention_heads": 2}
    fields = plan_of(CASES[3] | {"config": config}, tmp_path).model["overrides"]
    assert fields["text_heads"] == 2


def test_each_family_knows_its_own(tmp_path):
    openai, library = (source(folder_case, tmp_path) for folder_case in (CASES[0], CASES[3]))
    (tmp_path / "merges.txt").touch()
    for family, found, message in (
        (clip, library, "no tensor 'token_embedding.weight'"),
        (clip_transformers, openai, "no tensor 'text_projection.weight'"),
        (coca, openai, "no tensor 'text.cls_emb'"),
        (siglip, library, "its model_type is 'clip', not siglip"),
        (clip, Source(tmp_path, {}, {}, {}), "no tensor 'token_embedding.weight'"),
    ):
        with pytest.raises(NotThisFamily, match=message):
            family.plan(found)
    with pytest.raises(UserError, match=r"needs its config.json with text_config beside"):
        _with(library, config={})
    wide = {"visual.transformer.resblocks.0.mlp.c_fc.weight": [100, 48]}
    with pytest.raises(UserError, match=r"is 100 wide, not four times 48, and capjax.models.clip"):
        plan_of(CASES[0] | {"tensors": CASES[0]["tensors"] | wide}, tmp_path)
    odd = {"visual.positional_embedding": [12, 48]}
    with pytest.raises(UserError, match="11 patches, which make no square"):
        plan_of(CASES[0] | {"tensors": CASES[0]["tensors"] | odd}, tmp_path)
