"""Weights as 8-bit integers: a quarter of the memory, for decoding and not for training.

Of a matrix W every output channel o has a scale, s_o = max |W_o| / 127, and integers
round(W_o / s_o), so that no weight is off by more than s_o / 2, and an output x W_o by no more than
s_o / 2 sum |x| (Dettmers et al. 2022, arXiv 2208.07339, section 2; weights alone, symmetric).

    small, params = int8.quantise(run.model, run.params)       a model to apply, its parameters
    Captioner(small, params, run.tokenizer)

What is multiplied is quantised: the kernels of Dense and DenseGeneral, and of Embed the table, by
rows: a row is what reads a token, and where the table writes too it is that token's output channel.
Tables of words are the largest matrices of small captioners. Norms, biases, learned positions and
convolutions stay: they are few, norms and biases act on every channel alike, and a ViT's one
convolution is run once a picture.

The integers stand in the parameters as `kernel_int8` or `embedding_int8`, beside `.._scale` in
float32 and in place of `kernel` or `embedding`: a model that is applied as it is misses these, and
does not compute with integers in silence.

Letters: I input axes, O output axes, V rows, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from capjax.errors import UserError
from capjax.models.init import init
from capjax.models.intercepted import Intercepted, input_axes

LARGEST = 127
_LAYERS = {nn.Dense: "kernel", nn.DenseGeneral: "kernel", nn.Embed: "embedding"}


def quantise(model: nn.Module, params: Mapping[str, Any]) -> tuple[Intercepted, dict[str, Any]]:
    """The model that takes quantised parameters, and these.

    UserError for parameters that are not the model's, or that are quantised already.
    """
    flat = flatten_dict(dict(params))
    for path, inputs in _matrices(model).items():
        if path not in flat:
            raise UserError(
                f"the parameters have no {'/'.join(path)}, or are 8-bit already: give the model's "
                "own"
            )
        axes = tuple(range(inputs)) if path[-1] == "kernel" else (1,)
        # One after the other, so that no second copy of all is ever there.
        whole, scale = rounded(flat.pop(path), axes)
        flat[(*path[:-1], f"{path[-1]}_int8")] = whole
        flat[(*path[:-1], f"{path[-1]}_scale")] = scale
    return Intercepted(model, _multiply), unflatten_dict(flat)


@functools.partial(jax.jit, static_argnums=1)
def rounded(weights: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """(integers of the same shape, scale float32) where `axes` are those that are summed over."""
    weights = jnp.asarray(weights, jnp.float32)
    scale = jnp.max(jnp.abs(weights), axes, keepdims=True) / LARGEST
    safe = jnp.where(scale > 0, scale, 1)  # of zeros alone
    whole = jnp.clip(jnp.round(weights / safe), -LARGEST, LARGEST).astype(jnp.int8)
    return whole, jnp.squeeze(scale, axes)


def _matrices(model: nn.Module) -> dict[tuple[str, ...], int]:
    """The path of each matrix, and how many of its first axes are summed over."""
    found: dict[tuple[str, ...], int] = {}

    def note(call, args, kwargs, context):
        layer = context.module
        if type(layer) in _LAYERS:
            found[(*layer.path, _LAYERS[type(layer)])] = len(input_axes(layer))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda key: init(model, key), jax.random.key(0))
    return found


def _multiply(call, args, kwargs, context) -> Any:
    """In place of a layer's own call or `attend`, where its weights are integers."""
    layer, name = context.module, _LAYERS.get(type(context.module))
    if name is None or not layer.has_variable("params", f"{name}_int8"):
        return call(*args, **kwargs)
    if context.method_name == "setup":  # of Embed: it would look for its table
        return None
    whole = layer.get_variable("params", f"{name}_int8")
    scale = layer.get_variable("params", f"{name}_scale")
    x, dtype = args[0], layer.dtype or jnp.float32
    if name == "embedding" and context.method_name == "__call__":
        rows = jnp.take(whole, x, 0).astype(jnp.float32) * jnp.take(scale, x, 0)[..., None]
        return rows.astype(dtype)
    # Tied to the input, so that within a loop no wide copy of the weights is made before it.
    whole, x = jax.lax.optimization_barrier((whole, x))
    x = x.astype(dtype)
    if name == "embedding":
        y = jax.lax.dot_general(x, whole.astype(dtype), (((x.ndim - 1,), (1,)), ((), ())))
        return y * scale.astype(dtype)
    axes = tuple(axis % x.ndim for axis in input_axes(layer))
    summed = (axes, tuple(range(len(axes))))
    y = jax.lax.dot_general(x, whole.astype(dtype), (summed, ((), ())))
    y = y * scale.astype(dtype)
    if layer.use_bias:
        y = y + layer.get_variable("params", "bias").astype(dtype)
    return y
