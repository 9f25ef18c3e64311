"""A model that is applied to other parameters than its own: some layers multiply in another way.

    Intercepted(model, multiply).apply({"params": params}, ...)

`multiply(call, args, kwargs, context)` stands in for the calls of all layers, as an interceptor of
`flax.linen.intercept_methods` does; all else is as the model has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np


@dataclasses.dataclass(frozen=True)
class Intercepted:
    """A model whose layers' calls go through `multiply`; all else is as the model has it."""

    model: nn.Module
    multiply: Callable[..., Any]

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own."""
        with nn.intercept_methods(self.multiply):
            return self.model.apply(*args, **kwargs)

    def clone(self, **fields: Any) -> Intercepted:
        """The same with other fields of the model."""
        return Intercepted(self.model.clone(**fields), self.multiply)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # a copy that is being made has no model yet
            raise AttributeError(name)
        return getattr(self.model, name)


def input_axes(layer: nn.Module) -> tuple[int, ...]:
    """The axes of its input that a Dense or DenseGeneral sums over; its kernel begins with them."""
    axis = getattr(layer, "axis", -1)
    return (axis,) if np.ndim(axis) == 0 else tuple(axis)
