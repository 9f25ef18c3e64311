"""Optimisers and learning-rate schedules from the config: short chains of optax transformations.

    adamw      Loshchilov and Hutter 2019: decoupled weight decay
    adam       Kingma and Ba 2015: no weight decay
    adafactor  Shazeer and Stern 2018 as modified for vision by Zhai et al. 2022 (section 3.3):
               factored second moment, first moment kept, no scaling by the parameter
    lamb       You et al. 2020: adamw whose step of each matrix is as long as the matrix, times the
               learning rate; vectors, which that paper's code spares too, move as in adamw
    sgd        with momentum b1

Weight decay is multiplied by the learning rate and spares biases, scales and other vectors.
Parameters that `frozen` names stay as they are, cost no state and do not count for clipping.
`epsilon` is added to the root of the second moment by adamw, adam and lamb.
Raises `UserError` for an unknown name or a field that cannot be met.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from capjax.errors import UserError
from capjax.parallel.sharding import path_name

OPTIMIZERS = ("adamw", "adam", "adafactor", "lamb", "sgd")
SCHEDULES = ("constant", "linear", "cosine")


def make_schedule(config: ConfigDict, steps: int) -> optax.Schedule:
    """Step -> learning rate: a linear warm-up from 0, then `schedule.name` down to `end_fraction`.

    `config` is the optimizer section; the decay ends at `steps`.
    """
    peak, schedule = config.learning_rate, config.schedule
    warmup, end = schedule.warmup_steps, schedule.end_fraction
    if not 0 <= warmup <= steps:
        raise UserError(
            f"config.optimizer.schedule.warmup_steps={warmup} must lie between 0 and "
            f"config.steps={steps}"
        )
    decay_steps = max(steps - warmup, 1)
    if schedule.name == "constant":
        decay = optax.constant_schedule(peak)
    elif schedule.name == "linear":
        decay = optax.linear_schedule(peak, peak * end, decay_steps)
    elif schedule.name == "cosine":
        decay = optax.cosine_decay_schedule(peak, decay_steps, alpha=end)
    else:
        raise UserError(
            f"unknown config.optimizer.schedule.name {schedule.name!r}; "
            f"choose one of {', '.join(SCHEDULES)}"
        )
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The chain for the optimizer section: clip, precondition, decay, trust ratio, rate."""
    if config.name == "adam" and config.weight_decay:
        raise UserError(
            "config.optimizer: adam has no weight decay; set weight_decay=0 or choose adamw"
        )
    chain = []
    if config.clip_norm:
        chain.append(optax.clip_by_global_norm(config.clip_norm))
    chain.extend(_preconditioner(config))
    if config.weight_decay:
        chain.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    if config.name == "lamb":
        # A scalar that starts at 0, such as a log temperature, would hardly ever leave it.
        chain.append(optax.masked(optax.scale_by_trust_ratio(), decayed))
    chain.append(optax.scale_by_learning_rate(schedule))
    if not config.frozen:
        return optax.chain(*chain)
    return optax.chain(
        optax.masked(
            optax.chain(*chain), lambda p: jax.tree.map(lambda f: not f, frozen(config, p))
        ),
        optax.masked(optax.set_to_zero(), lambda p: frozen(config, p)),
    )


def frozen(config: ConfigDict, params: Any) -> Any:
    """A tree like `params`: True for the arrays that training leaves alone.

    UserError for an expression that matches none of them, or if nothing is left to train.
    """
    try:
        patterns = [re.compile(pattern) for pattern in config.frozen]
    except re.error as error:
        raise UserError(f"config.optimizer.frozen={config.frozen}: {error}") from error
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern in patterns:
        if not any(map(pattern.search, names)):
            raise UserError(
                f"config.optimizer.frozen: no parameter matches {pattern.pattern!r}; they are "
                f"called like {names[0]!r}"
            )
    if patterns and all(any(pattern.search(name) for pattern in patterns) for name in names):
        raise UserError(f"config.optimizer.frozen={config.frozen} leaves nothing to train")
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(pattern.search(path_name(path)) for pattern in patterns), params
    )


def decayed(params: Any) -> Any:
    """A tree like `params`: True for the arrays that weight decay applies to."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            leaf.ndim > 1 and path_name(path).rsplit("/", 1)[-1] not in ("bias", "scale")
        ),
        params,
    )


def _preconditioner(config: ConfigDict) -> list[optax.GradientTransformation]:
    if config.name in ("adamw", "adam", "lamb"):
        return [optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon)]
    if config.name == "adafactor":
        return [
            optax.scale_by_factored_rms(decay_rate=0.8),
            optax.clip_by_block_rms(1.0),
            optax.ema(config.b1, debias=False),
        ]
    if config.name == "sgd":
        return [optax.trace(decay=config.b1)]
    raise UserError(
        f"unknown config.optimizer.name {config.name!r}; choose one of {', '.join(OPTIMIZERS)}"
    )
