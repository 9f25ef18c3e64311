"""The first parameters of any model: from a batch of one of what it takes.

Letters: S side in pixels, L caption positions.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def inputs_of(model: nn.Module) -> tuple[Any, ...]:
    """Arguments of the model's call: what its `inputs()` gives, or a picture and a row of tokens.

    uint8 [1,S,S,3] and int32 [1,L].
    """
    if hasattr(model, "inputs"):
        return model.inputs()
    image = jnp.zeros((1, model.image_size, model.image_size, 3), jnp.uint8)
    return image, jnp.zeros((1, model.max_length), jnp.int32)


def init(model: nn.Module, rng: jax.Array) -> dict[str, Any]:
    """Parameters, a plain nested dict, for any of the model's batch sizes."""
    return model.init(rng, *inputs_of(model))["params"]
