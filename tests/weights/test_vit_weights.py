"""Vision Transformers: the outputs of timm's and the transformers library's, and the way back."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import peer_cases
import pytest
from peer_weights import assert_close, assert_goes_back, cases, params, source

from capjax.errors import UserError
from capjax.models import image_encoder
from capjax.models.coca import unit
from capjax.parallel.mesh import batch_sharding, make_mesh
from capjax.weights import vit
from capjax.weights.plan import NotThisFamily

CASES = cases("vit")
DEIT, TIMM, CLASSIFIER, BACKBONE = range(4)
NUMBERS = pytest.mark.parametrize("number", range(4), ids=["deit", "timm", "classifier", "model"])


def checkpoint(number, **fields):
    """The case as a `Source`, some of whose fields are replaced."""
    case = CASES[number]
    fields = {"preprocessor": case["preprocessor"]} | fields
    return dataclasses.replace(source(case), **fields)


def without(number, name):
    """The case's tensors but for one."""
    return {key: x for key, x in peer_cases.tensors(CASES[number]).items() if key != name}


@functools.cache
def imported(number):
    """(plan, model, parameters, pictures, the outputs of everything)."""
    plan = vit.plan(checkpoint(number))
    model = image_encoder.Model(
        image_size=plan.image["image_size"],
        variant=plan.model["variant"],
        overrides=plan.model["overrides"],
    )
    ours = params(plan, model, peer_cases.tensors(CASES[number]), *model.inputs())
    image = peer_cases.picture(CASES[number]["image"])
    return plan, model, ours, image, jax.jit(model.apply)({"params": ours}, image)


@NUMBERS
def test_outputs_are_the_publics(number):
    _, model, ours, image, (features, logits) = imported(number)
    theirs = CASES[number]["outputs"]
    assert_close(features.context, theirs["states"])
    states = np.reshape(theirs["states"], features.context.shape)
    assert_close(features.embedding, unit(states[:, 0]))
    if theirs["logits"] is None:
        assert logits is None
        with pytest.raises(UserError, match="has no head: set the number of its classes"):
            model.apply({"params": ours}, image, method="classify")
    else:
        assert_close(logits, theirs["logits"])


@NUMBERS
def test_tensors_go_back(number):
    plan, _, ours, _, _ = imported(number)
    assert_goes_back(plan, ours, peer_cases.tensors(CASES[number]))


def test_methods_agree():
    _, model, ours, image, (features, logits) = imported(CLASSIFIER)
    embedding = model.apply({"params": ours}, image, method="embed_image")
    np.testing.assert_allclose(embedding, features.embedding, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(
        model.apply({"params": ours}, image, method="classify"), logits, atol=1e-5
    )


@pytest.mark.parametrize("number", [DEIT, BACKBONE])
def test_gradient_is_the_publics(number):
    _, model, ours, image, _ = imported(number)

    @jax.jit
    @jax.value_and_grad
    def score(params):
        features, _ = model.apply({"params": params}, image)
        return (jnp.abs(features.context) ** 3).mean()

    value, gradient = score(ours)
    theirs = CASES[number]["outputs"]
    assert value == pytest.approx(theirs["score"], rel=1e-5)
    assert_close(gradient["image_tower"]["cls"], theirs["gradient"])


def test_eight_devices_give_what_one_gives():
    _, model, ours, image, (one, _) = imported(DEIT)
    eight = np.concatenate([image] * 4)
    mesh = make_mesh({"data": 8})
    with jax.set_mesh(mesh):
        placed = jax.device_put(eight, batch_sharding(mesh))
        features, _ = jax.jit(model.apply)({"params": ours}, placed)
    assert len(features.context.sharding.device_set) == 8
    np.testing.assert_allclose(features.context[-len(image) :], one.context, atol=1e-5)


def test_sizes_pixels_and_crop_are_the_checkpoints():
    plans = [vit.plan(checkpoint(number)) for number in range(4)]
    assert [plan.image["resize"] for plan in plans] == [
        "crop_0.875",
        "crop_0.9",
        "squash_bilinear",
        "squash",
    ]
    overrides = [plan.model["overrides"] for plan in plans]
    assert [o["pixels"] for o in overrides] == ["imagenet", "half", "half", "imagenet"]
    assert [o["classes"] for o in overrides] == [5, 0, 3, 0]
    assert [o["epsilon"] for o in overrides] == [1e-6, 1e-6, 1e-12, 1e-3]
    assert overrides[BACKBONE]["activation"] == "gelu_tanh"
    assert [plan.task for plan in plans] == [None] * 4


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dist_token", "distilled DeiT, with two class tokens"),
        ("reg_token", "register tokens"),
        ("fc_norm.weight", "reads the mean of all tokens"),
        ("blocks.0.ls1.gamma", "a learned scale"),
    ],
)
def test_relatives_are_refused(name, reason):
    tensors = peer_cases.tensors(CASES[DEIT]) | {name: np.zeros((1, 1, 64), np.float32)}
    with pytest.raises(NotThisFamily, match=reason):
        vit.plan(checkpoint(DEIT, tensors=tensors))


def test_other_models_are_refused():
    with pytest.raises(NotThisFamily, match="model_type is 'dinov2', not vit"):
        vit.plan(checkpoint(CLASSIFIER, config={"model_type": "dinov2"}))
    with pytest.raises(NotThisFamily, match="distilled DeiT"):
        vit.plan(checkpoint(CLASSIFIER, config={"model_type": "deit"}))
    with pytest.raises(NotThisFamily, match="no tensor 'cls_token'"):
        vit.plan(checkpoint(TIMM, tensors=without(TIMM, "cls_token")))
    with pytest.raises(NotThisFamily, match="global_pool is 'avg'"):
        vit.plan(checkpoint(TIMM, config=CASES[TIMM]["config"] | {"global_pool": "avg"}))


def test_fields_that_cannot_be_expressed_are_named():
    config = CASES[CLASSIFIER]["config"]
    with pytest.raises(UserError, match="hidden_act='mish' is not supported"):
        vit.plan(checkpoint(CLASSIFIER, config=config | {"hidden_act": "mish"}))
    with pytest.raises(UserError, match="qkv_bias=False is not supported"):
        vit.plan(checkpoint(CLASSIFIER, config=config | {"qkv_bias": False}))
    preprocessor = CASES[BACKBONE]["preprocessor"] | {"size": {"height": 32, "width": 32}}
    with pytest.raises(UserError, match="pictures of 32 pixels and the positions are those of 24"):
        vit.plan(checkpoint(BACKBONE, preprocessor=preprocessor))
    config = CASES[TIMM]["config"]
    for field, value, message in (
        ("crop_pct", 0.77, "crop_pct=0.77.* is none of the resize rules"),
        ("crop_mode", "border", "crop_mode='border'.* is none of the resize rules"),
        ("mean", [0.1, 0.2, 0.3], "is none of half, imagenet, clip"),
    ):
        changed = config | {"pretrained_cfg": config["pretrained_cfg"] | {field: value}}
        with pytest.raises(UserError, match=message):
            vit.plan(checkpoint(TIMM, config=changed))
    # 48 channels are no multiple of 64, and without model_args nothing else tells.
    with pytest.raises(UserError, match="number of heads of a ViT of width 48 is not known"):
        vit.plan(checkpoint(TIMM, config={}))


def test_missing_and_foreign_tensors_are_named():
    plan, model, _, _, _ = imported(DEIT)
    with pytest.raises(UserError, match=r"no tensor 'blocks\.1\.mlp\.fc2\.bias'"):
        params(plan, model, without(DEIT, "blocks.1.mlp.fc2.bias"), *model.inputs())
    tensors = peer_cases.tensors(CASES[DEIT]) | {"mask_token": np.zeros((1, 1, 64), np.float32)}
    with pytest.raises(UserError, match=r"no parameter for 1 of .* 'mask_token'"):
        params(plan, model, tensors, *model.inputs())


def test_unknown_pixels_are_named():
    model = image_encoder.Model(image_size=32, overrides={"pixels": "grey"})
    with pytest.raises(UserError, match="pixels='grey' must be one of half, imagenet, clip"):
        model.init(jax.random.key(0), *model.inputs())
