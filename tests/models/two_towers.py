"""What the tests of all two-tower models do: apply, initialise, count, compare with public ones."""

import functools

import jax
import numpy as np
import peer_cases

from capjax.weights.table import to_params


@functools.partial(jax.jit, static_argnums=(0, 1, 4), static_argnames=("prefix",))
def run(model, method, params, value, train=False, prefixes=None, *, rng=None, prefix=None):
    """One of the model's methods, compiled once for all tests."""
    options = {} if prefixes is None and prefix is None else {"prefix": prefix or prefixes}
    rngs = {} if rng is None else {"dropout": rng}
    return model.apply({"params": params}, value, train, rngs=rngs, method=method, **options)


def inputs_of(model, batch=2):
    """Pictures and tokens of the shapes that the model takes."""
    image = np.zeros((batch, model.image_size, model.image_size, 3), np.uint8)
    return image, np.zeros((batch, model.max_length), np.int32)


def shapes_of(model):
    """The parameters' shapes, without computing anything."""
    return jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))["params"]


def drawn(shapes):
    """Parameters of these shapes with no bias zero: compiling an initialisation takes longer."""

    def draw(path, leaf):
        rng = np.random.default_rng(sum(map(ord, jax.tree_util.keystr(path))))
        values = rng.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "var":
            return 0.5 + 0.25 * np.abs(values)
        if leaf.ndim < 2:
            return 0.2 * values + (path[-1].key == "scale")
        return 1.5 * values / np.sqrt(np.prod(leaf.shape[:-1]))

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def params_of(model):
    """Drawn parameters of the model, not to be changed in place."""
    return drawn(shapes_of(model))


def first(model, *path):
    """Parameters as `init` makes them: only those under each path (a tuple of names) are."""

    def pick(key):
        params = model.init(key, *inputs_of(model))["params"]
        return [functools.reduce(lambda tree, name: tree[name], p, params) for p in path]

    return jax.jit(pick)(jax.random.key(0))


def count(shapes):
    """How many numbers are trained: not the statistics of BatchNorm, which torch calls buffers."""
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    return sum(x.size for path, x in leaves if getattr(path[-1], "key", "") not in ("mean", "var"))


def check_parity(model, table, unread, case):
    """Both embeddings, and the logits where there are some, are the public implementation's."""
    params = to_params(table, shapes_of(model), peer_cases.tensors(case), unread)
    image = run(model, "embed_image", params, peer_cases.picture(case["image"]))
    text = run(model, "embed_text", params, np.array(case["tokens"], np.int32))
    np.testing.assert_allclose(image, case["outputs"]["image"], atol=1e-5)
    np.testing.assert_allclose(text, case["outputs"]["text"], atol=1e-5)
    if "logits" in case["outputs"]:
        logits = np.exp(params["logit_scale"]) * image @ text.T + params.get("logit_bias", 0)
        np.testing.assert_allclose(logits, case["outputs"]["logits"], atol=1e-4)
    for embedded in (image, text):  # rows that are alike would prove little
        if len(embedded) > 1:
            assert np.abs(embedded[0] - embedded[1]).max() > 0.01
