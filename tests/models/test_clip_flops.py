"""The count of CLIP's operations: the products of the traced model, one by one."""

import math

import jax
import pytest
from clip_flops import forward_flops, training_flops
from two_towers import inputs_of, shapes_of

from capjax.errors import UserError
from capjax.models import clip
from capjax.tasks.contrastive import Task

SMALL = dict(
    image_layers=2,
    image_width=48,
    image_heads=3,
    patch_size=8,
    text_layers=3,
    text_width=32,
    text_heads=2,
    embedding_dim=20,
)
BATCH = 3


def products(function, *arguments):
    """2 M K N of every product in the traced function, those of inner functions included."""

    def within(jaxpr):
        total = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                shape = equation.invars[0].aval.shape
                summed = math.prod(shape[axis] for axis in contracted)
                total += 2 * summed * equation.outvars[0].aval.size
            total += sum(within(inner) for inner in jax.core.jaxprs_in_params(equation.params))
        return total

    return within(jax.make_jaxpr(function)(*arguments).jaxpr)


@pytest.fixture(params=[(), ("source",)], ids=["plain", "with a prefix"])
def model(request):
    prefix = request.param[0] if request.param else ""
    return clip.Model(
        20, 7, 24, overrides=SMALL, prefixes=request.param, test_prefix=prefix, dtype="bfloat16"
    )


def test_forward_is_the_products_of_both_towers(model):
    image, tokens = inputs_of(model, BATCH)
    params = {"params": shapes_of(model)}
    expected = forward_flops(model)
    embed = {"image": image, "text": tokens}
    for name, value in embed.items():

        def forward(params, value, method=f"embed_{name}"):
            return model.apply(params, value, method=method)

        assert products(forward, params, value) == BATCH * getattr(expected, name)


def test_training_is_the_products_of_a_step():
    model = clip.Model(20, 7, 24, overrides=SMALL)
    image, tokens = inputs_of(model, BATCH)
    gradient = jax.value_and_grad(Task(model=model).loss, has_aux=True)
    found = products(
        gradient, shapes_of(model), {"image": image, "tokens": tokens}, jax.random.key(0)
    )
    cosines = 3 * 2 * BATCH**2 * SMALL["embedding_dim"]
    pixels = BATCH * 2 * 9 * 3 * 8**2 * SMALL["image_width"]
    assert found == training_flops(model, BATCH) + cosines - pixels


# OpenCLIP's docs/model_profile.csv, GFLOPs of a picture and of a text.
@pytest.mark.parametrize(
    ("variant", "image", "text"),
    [
        ("ViT-B/32", 8.82, 5.96),
        ("ViT-B/16", 35.13, 5.96),
        ("ViT-L/14", 162.03, 13.30),
        ("ViT-L/14@336", 381.92, 13.30),
    ],
)
def test_published_sizes_are_as_others_count_them(variant, image, text):
    flops = forward_flops(clip.published(variant))
    assert flops.image / 1e9 == pytest.approx(image, abs=0.01)
    assert flops.text / 1e9 == pytest.approx(text, abs=0.01)


def test_a_resnet_is_refused():
    with pytest.raises(UserError, match=r"RN50 .*choose a ViT"):
        forward_flops(clip.published("RN50"))
