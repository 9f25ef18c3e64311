"""Kernels laid out for the few rows that a step of decoding multiplies, on a CPU.

A step is bound by reading weights. XLA for CPUs packs the right-hand side of a product before it
multiplies, in x W all of the weights, though x has a handful of rows. In W^T x^T it packs x, and
reads W^T as it lies: so these kernels are stored the other way round.

    quick, params = turned.turn(run.model, run.params)     a model to apply, its parameters
    Captioner(quick, params, run.tokenizer)

Turned are the kernels of Dense and DenseGeneral that the model's `decode_step` reads. They stand in
the parameters as `kernel_turned` [O,I] in place of `kernel`, so that a model that is applied as it
is misses them. A table of words that also writes them (Embed) lies that way already. Outputs are
the same sums in another order. On a GPU or a TPU there is nothing to gain.

Letters: I inputs, O outputs, each of all their axes together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from capjax.errors import UserError
from capjax.models.init import inputs_of
from capjax.models.intercepted import Intercepted, input_axes

# Beyond this many rows packing the weights is little beside multiplying them.
MOST_ROWS = 64


def turn(model: nn.Module, params: Mapping[str, Any]) -> tuple[Intercepted, dict[str, Any]]:
    """The model that takes turned parameters, and these; what is not turned is shared.

    UserError for a model that does not decode step by step, and for parameters not its own.
    """
    if not (hasattr(model, "encode_image") and hasattr(model, "decode_step")):
        raise UserError(
            f"the model {type(model).__module__} writes no captions of pictures: give a captioner"
        )
    flat = flatten_dict(dict(params))
    for path, inputs in _read_in_steps(model).items():
        if path not in flat:
            raise UserError(
                f"the parameters have no {'/'.join(path)}: give the model's own, not 8-bit ones"
            )
        kernel = flat.pop(path)
        rows = int(np.prod(kernel.shape[:inputs]))
        flat[(*path[:-1], "kernel_turned")] = jnp.transpose(jnp.reshape(kernel, (rows, -1)))
    return Intercepted(model, _multiply), unflatten_dict(flat)


def _read_in_steps(model: nn.Module) -> dict[tuple[str, ...], int]:
    """The paths of the kernels that `decode_step` multiplies; how many of their axes are inputs."""
    found: dict[tuple[str, ...], int] = {}

    def note(call, args, kwargs, context):
        layer = context.module
        if type(layer) in (nn.Dense, nn.DenseGeneral):
            found[(*layer.path, "kernel")] = len(input_axes(layer))
        return call(*args, **kwargs)

    def step():
        inputs = inputs_of(model)
        params = {"params": model.init(jax.random.key(0), *inputs)["params"]}
        context = model.apply(params, inputs[0], method="encode_image").context
        state = model.apply(params, context, method="start_decoding")
        with nn.intercept_methods(note):
            model.apply(params, jnp.zeros(1, jnp.int32), 0, state, method="decode_step")

    jax.eval_shape(step)
    return found


def _product(x: jax.Array, turned: jax.Array) -> jax.Array:
    """x [...,I] times what is stored as [O,I] -> [...,O]."""
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) > MOST_ROWS:
        return jax.lax.dot_general(x, turned, (((x.ndim - 1,), (1,)), ((), ())))
    # Without the barrier XLA takes the two transpositions away, and the product is x W once more.
    y = jax.lax.optimization_barrier(turned @ rows.T).T
    return y.reshape(*x.shape[:-1], -1)


def _multiply(call, args, kwargs, context) -> Any:
    """In place of a layer's own call or `attend`, where its weights lie the other way round."""
    layer = context.module
    if type(layer) is nn.Embed and context.method_name == "attend":
        x, table = nn.dtypes.promote_dtype(args[0], layer.embedding, dtype=layer.dtype)
        return _product(x, table)
    if not layer.has_variable("params", "kernel_turned"):
        return call(*args, **kwargs)
    kernel = layer.get_variable("params", "kernel_turned")
    bias = layer.get_variable("params", "bias") if layer.use_bias else None
    x, kernel, bias = nn.dtypes.promote_dtype(args[0], kernel, bias, dtype=layer.dtype)
    batch = x.shape[: x.ndim - len(input_axes(layer))]  # the model's are the last ones
    outputs = layer.features if isinstance(layer.features, Sequence) else (layer.features,)
    y = _product(x.reshape(*batch, -1), kernel).reshape(*batch, *outputs)
    return y if bias is None else y + bias
