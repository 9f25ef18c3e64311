"""Which parameters an optimiser treats how: by regular expressions on their paths.

    frozen          those that stay as they are                     ("^image_tower/",)
    learning_rates  (regex, factor) of the learning rate            (("^image_tower/", 0.1),)
    weight_decays   (regex, factor) of the weight decay             (("positions$", 0.0),)
    layer_decay     a factor for each layer that lies between a parameter and its tower's end

The first regex that is found in a path decides; where none is, learning rates stay as they are and
weight decay spares biases, scales and other vectors.

Layer-wise decay is BEiT's (Bao et al. 2022, arXiv 2106.08254, appendix): of a tower with L blocks,
what comes before them has the factor d^(L+1), block i (from 0) d^(L-i), and what follows 1. A tower
is what has blocks of its own: a model with an image tower and a text tower has two depths. What
reads tokens for several towers counts with the deepest.

Raises `UserError` for an expression that is none, or that matches no parameter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from capjax.errors import UserError
from capjax.parallel.sharding import path_name

_BLOCK = re.compile(
    r"^(?P<tower>(?:.*?/)??)(?:stack/)?"
    r"(?:stage_(?P<stage>\d+)_)?(?:cross_)?blocks?_(?P<index>\d+)/"
)
_INPUT = re.compile(
    r"(^|/)(embedding|positions|segments|cls|patch_embedding|stem|stem_\w+|pre_norm)(/|$)"
)
_NO_INPUT = "relative_bias/"  # T5's table of biases, which BEiT too leaves at the full rate


def frozen(config: ConfigDict, params: Any) -> Any:
    """A tree like `params`: True for the arrays that training leaves alone.

    UserError for an expression that matches none of them, or if nothing is left to train.
    """
    names = _names(params)
    patterns = [_compiled("frozen", pattern, names) for pattern in config.frozen]
    if patterns and all(any(pattern.search(name) for pattern in patterns) for name in names):
        raise UserError(f"config.optimizer.frozen={config.frozen} leaves nothing to train")
    return _map(lambda name, _: any(pattern.search(name) for pattern in patterns), params)


def decayed(params: Any) -> Any:
    """A tree like `params`: True for the arrays that weight decay applies to unless told."""
    return _map(
        lambda name, leaf: leaf.ndim > 1 and name.rsplit("/", 1)[-1] not in ("bias", "scale"),
        params,
    )


def weight_decay_factors(config: ConfigDict, params: Any) -> Any:
    """A tree like `params` of what the weight decay is multiplied by."""
    given = _first_of("weight_decays", config.weight_decays, params)
    return jax.tree.map(
        lambda name, decays: given.get(name, float(decays)), _map(_name, params), decayed(params)
    )


def learning_rate_factors(config: ConfigDict, params: Any) -> Any:
    """A tree like `params` of what the learning rate is multiplied by."""
    given = _first_of("learning_rates", config.learning_rates, params)
    by_depth = layer_factors(config.layer_decay, _names(params))
    return _map(lambda name, _: given.get(name, 1.0) * by_depth[name], params)


def layer_factors(decay: float, names: Sequence[str]) -> dict[str, float]:
    """The factor of each parameter by its path."""
    if not 0 < decay <= 1:
        raise UserError(f"config.optimizer.layer_decay must lie in (0, 1], not {decay}")
    if decay == 1:
        return dict.fromkeys(names, 1.0)
    blocks: dict[str, set[tuple[int, int]]] = {}
    for name in names:
        if block := _BLOCK.match(name):
            blocks.setdefault(block["tower"], set()).add(_place(block))
    if not blocks:
        raise UserError(
            f"config.optimizer.layer_decay={decay} is by the depth of a block, but the model has "
            f"none: its parameters are called like {names[0]!r}"
        )
    # The highest block of a tower has one layer above it, its own.
    heights = {tower: sorted(places, reverse=True) for tower, places in blocks.items()}
    return {name: decay ** _layers_above(name, heights) for name in names}


def in_block(name: str) -> bool:
    """Whether a parameter of this path belongs to a block of a tower."""
    return bool(_BLOCK.match(name))


def _place(block: re.Match[str]) -> tuple[int, int]:
    """(stage, number) of a block; convolutional towers have stages."""
    return int(block["stage"] or 0), int(block["index"])


def _layers_above(name: str, heights: dict[str, list[tuple[int, int]]]) -> int:
    if block := _BLOCK.match(name):
        return 1 + heights[block["tower"]].index(_place(block))
    own = [tower for tower in heights if name.startswith(tower)]
    # BERT normalises its embeddings; other towers end with a norm, which is their stack's.
    first_norm = any(name.startswith(f"{tower}norm/") for tower in own)
    if not first_norm and (_NO_INPUT in name or not _INPUT.search(name)):
        return 0
    return 1 + max(len(heights[tower]) for tower in own or heights)


def _first_of(field: str, entries: Sequence[Any], params: Any) -> dict[str, float]:
    """The factor of each parameter that an expression is found in, by its path."""
    names = _names(params)
    factors: dict[str, float] = {}
    for entry in entries:
        if isinstance(entry, str) or len(entry) != 2 or not _is_factor(entry[1]):
            raise UserError(
                f"config.optimizer.{field}: {entry!r} is not a pair (regex, factor of 0 or more)"
            )
        pattern = _compiled(field, entry[0], names)
        for name in filter(pattern.search, names):
            factors.setdefault(name, float(entry[1]))
    return factors


def _is_factor(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value >= 0


def _compiled(field: str, pattern: str, names: Sequence[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"config.optimizer.{field}: {pattern!r} is not a regex: {error}") from error
    if not any(map(compiled.search, names)):
        raise UserError(
            f"config.optimizer.{field}: no parameter matches {pattern!r}; they are called like "
            f"{names[0]!r}"
        )
    return compiled


def _names(params: Any) -> list[str]:
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _name(name: str, _: Any) -> str:
    return name


def _map(function: Any, params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(path_name(path), leaf), params
    )
