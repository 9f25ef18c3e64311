"""Low-rank adaptation (LoRA, Hu et al. 2022, arXiv 2106.09685): what a frozen layer learns.

Beside a linear layer W stands another, scale * up(down(x)), of a few dimensions; `up` starts at
zero, so that nothing changes at first. Train it alone with

    config.optimizer.frozen = ("^(?!.*_lora/)",)

`merged` adds it to W, which gives a model without it and the same numbers (section 4.1).

Letters: I input axes, O output axes, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from capjax.errors import UserError

LAYERS = ("query", "key", "value", "out", "mlp_in", "mlp_gate", "mlp_out")
SUFFIX = "_lora"


class Lora(NamedTuple):
    """Which layers of a block are adapted, and how; scale = alpha / rank."""

    rank: int = 8
    alpha: float = 16.0
    layers: tuple[str, ...] = ("query", "value")


def make(fields: Mapping[str, Any] | None) -> Lora | None:
    """From a config's section; UserError for a layer that there is not, or a rank below 1."""
    if not fields:
        return None
    known = set(Lora._fields)
    if set(fields) - known:
        raise UserError(f"lora has the fields {', '.join(sorted(known))}, not {sorted(fields)}")
    lora = Lora(**{k: tuple(v) if k == "layers" else v for k, v in fields.items()})
    unknown = [name for name in lora.layers if name not in LAYERS]
    if unknown or lora.rank < 1:
        raise UserError(
            f"lora needs a rank of 1 or more and layers among {', '.join(LAYERS)}: not rank="
            f"{lora.rank}, layers={lora.layers}"
        )
    return lora


class LowRank(nn.Module):
    """What is added to the output of one linear layer: x [..,I] -> [..,O]."""

    features: int | tuple[int, ...]
    lora: Lora
    axis: int | tuple[int, ...] = -1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rank, alpha, _ = self.lora
        down = nn.DenseGeneral(rank, axis=self.axis, use_bias=False, dtype=self.dtype, name="down")
        up = nn.DenseGeneral(
            self.features,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros,
            name="up",
        )
        return up(down(x)) * (alpha / rank)


def merged(params: Mapping[str, Any], lora: Lora) -> dict[str, Any]:
    """The parameters of the same model without LoRA."""
    flat = flatten_dict(dict(params))
    plain = {path: leaf for path, leaf in flat.items() if not _is_low_rank(path)}
    for path, down in flat.items():
        if _is_low_rank(path) and path[-2] == "down":
            up = flat[(*path[:-2], "up", "kernel")]
            kernel = (*path[:-3], path[-3].removesuffix(SUFFIX), "kernel")
            change = jnp.tensordot(down, up, 1) * (lora.alpha / lora.rank)
            plain[kernel] = plain[kernel] + change.reshape(plain[kernel].shape)
    return unflatten_dict(plain)


def _is_low_rank(path: tuple[str, ...]) -> bool:
    return len(path) > 2 and path[-3].endswith(SUFFIX)
