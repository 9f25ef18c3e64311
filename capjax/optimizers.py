"""Optimisers and learning-rate schedules from the config: short chains of optax transformations.

    adamw      Loshchilov and Hutter 2019: decoupled weight decay
    adam       Kingma and Ba 2015: no weight decay
    adafactor  Shazeer and Stern 2018 as modified for vision by Zhai et al. 2022 (section 3.3):
               factored second moment, first moment kept, no scaling by the parameter
    lamb       You et al. 2020: adamw whose step of each matrix is as long as the matrix, times the
               learning rate; vectors, which that paper's code spares too, move as in adamw
    lion       Chen et al. 2023 (arXiv 2302.06675): the sign of a momentum; takes learning rates
               three to ten times smaller than adamw's, and weight decays as much larger
    muon       Jordan et al. 2024: the momentum of each kernel in a block, made orthogonal; scaled
               as in Liu et al. 2025 (arXiv 2502.16982) so that it takes adamw's learning rates and
               weight decays. Everything else is as in adamw
    sm3        Anil et al. 2019 (arXiv 1901.11150): second moments of rows and columns alone, summed
               over all steps (b2 does not count)
    sgd        with momentum b1

Weight decay is multiplied by the learning rate. What of it, of the learning rate and of training
altogether is for some parameters only: see `capjax.parameter_groups`. Frozen parameters stay as
they are, cost no state and do not count for clipping.
`epsilon` is added to the root of the second moment by adamw, adam, lamb and muon.

Schedules, after a linear warm-up from 0 over `warmup_steps`:

    constant   the learning rate
    linear     down to `end_fraction` of it at the last step
    cosine     likewise, along half a wave (Loshchilov and Hutter 2017)
    rsqrt      falls as sqrt(timescale / (timescale + steps since the warm-up)); Zhai et al. 2022
               (arXiv 2106.04560), section 3.5
    step       multiplied by `factor` at each of the steps `boundaries`

`cooldown_steps` bring constant, rsqrt and step down to `end_fraction` of what they are, linearly
over the last steps; constant with it is warmup-stable-decay (arXiv 2405.18392).
Raises `UserError` for an unknown name or a field that cannot be met.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict
from optax import contrib

from capjax.errors import UserError
from capjax.parallel.sharding import path_name
from capjax.parameter_groups import (
    decayed,
    frozen,
    in_block,
    learning_rate_factors,
    weight_decay_factors,
)

OPTIMIZERS = ("adamw", "adam", "adafactor", "lamb", "lion", "muon", "sm3", "sgd")
SCHEDULES = ("constant", "linear", "cosine", "rsqrt", "step")
_TO_THE_END = ("linear", "cosine")  # schedules that come down by themselves
_MUON_RMS = 0.2  # of an update, as of adamw's in practice; arXiv 2502.16982, section 2.2


def make_schedule(config: ConfigDict, steps: int) -> optax.Schedule:
    """Step -> learning rate; `config` is the optimizer section, `steps` the length of the run."""
    peak, schedule = config.learning_rate, config.schedule
    warmup, end, cooldown = schedule.warmup_steps, schedule.end_fraction, schedule.cooldown_steps
    where = "config.optimizer.schedule"
    if not 0 <= warmup <= steps:
        raise UserError(
            f"{where}.warmup_steps={warmup} must lie between 0 and config.steps={steps}"
        )
    if cooldown and schedule.name in _TO_THE_END:
        raise UserError(
            f"{where}.cooldown_steps={cooldown}: {schedule.name} comes down by itself; set it to "
            "0, or choose constant, rsqrt or step"
        )
    if not 0 <= cooldown <= steps - warmup:
        raise UserError(
            f"{where}.cooldown_steps={cooldown} must lie between 0 and the {steps - warmup} steps "
            "that follow the warm-up"
        )
    decay = _decay(schedule, peak, max(steps - warmup, 1), warmup)
    if cooldown:
        decay = _cooled(decay, steps - warmup - cooldown, cooldown, end)
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def _decay(schedule: ConfigDict, peak: float, steps: int, warmup: int) -> optax.Schedule:
    """What follows the warm-up, counted from its end."""
    where = "config.optimizer.schedule"
    if schedule.name == "constant":
        return optax.constant_schedule(peak)
    if schedule.name == "linear":
        return optax.linear_schedule(peak, peak * schedule.end_fraction, steps)
    if schedule.name == "cosine":
        return optax.cosine_decay_schedule(peak, steps, alpha=schedule.end_fraction)
    if schedule.name == "rsqrt":
        timescale = schedule.timescale
        if timescale <= 0:
            raise UserError(f"{where}.timescale must be more than 0, not {timescale}")
        return lambda step: peak * jnp.sqrt(timescale / (timescale + step))
    if schedule.name == "step":
        bounds = tuple(schedule.boundaries)
        if not bounds or list(bounds) != sorted({*bounds}) or bounds[0] <= warmup:
            raise UserError(
                f"{where}.boundaries={bounds}: name the steps at which the rate is multiplied by "
                "`factor`, in ascending order and after the warm-up"
            )
        factors = {bound - warmup: schedule.factor for bound in bounds}
        return optax.piecewise_constant_schedule(peak, factors)
    raise UserError(f"unknown {where}.name {schedule.name!r}; choose one of {', '.join(SCHEDULES)}")


def _cooled(decay: optax.Schedule, begin: int, steps: int, end: float) -> optax.Schedule:
    """`decay` until `begin`, from there linearly to `end` of what it is then."""

    def rate(step):
        left = jnp.clip((begin + steps - step) / steps, 0, 1)
        return decay(jnp.minimum(step, begin)) * (end + (1 - end) * left)

    return rate


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
    if config.weight_decay and config.weight_decays:
        chain.append(_add_decayed_weights(config))
    elif config.weight_decay:
        chain.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    elif config.weight_decays:
        raise UserError(
            "config.optimizer.weight_decays are factors of weight_decay, which is 0: set it"
        )
    if config.name == "lamb":
        # A scalar that starts at 0, such as a log temperature, would hardly ever leave it.
        chain.append(optax.masked(optax.scale_by_trust_ratio(), decayed))
    if config.learning_rates or config.layer_decay != 1:
        chain.append(_scale_by_group(config))
    chain.append(optax.scale_by_learning_rate(schedule))
    if not config.frozen:
        return optax.chain(*chain)
    return optax.chain(
        optax.masked(
            optax.chain(*chain), lambda p: jax.tree.map(lambda f: not f, frozen(config, p))
        ),
        optax.masked(optax.set_to_zero(), lambda p: frozen(config, p)),
    )


def _add_decayed_weights(config: ConfigDict) -> optax.GradientTransformation:
    def update(updates, params):
        return jax.tree.map(
            lambda u, p, factor: u + config.weight_decay * factor * p,
            updates,
            params,
            weight_decay_factors(config, params),
        )

    return optax.stateless(update)


def _scale_by_group(config: ConfigDict) -> optax.GradientTransformation:
    def update(updates, _):
        return jax.tree.map(lambda u, f: u * f, updates, learning_rate_factors(config, updates))

    return optax.stateless(update)


def _preconditioner(config: ConfigDict) -> list[optax.GradientTransformation]:
    if config.name in ("adamw", "adam", "lamb"):
        return [optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon)]
    if config.name == "adafactor":
        return [
            optax.scale_by_factored_rms(decay_rate=0.8),
            optax.clip_by_block_rms(1.0),
            optax.ema(config.b1, debias=False),
        ]
    if config.name == "lion":
        return [optax.scale_by_lion(b1=config.b1, b2=config.b2)]
    if config.name == "muon":
        return [_muon(config)]
    if config.name == "sm3":
        return [optax.scale_by_sm3(b1=config.b1)]
    if config.name == "sgd":
        return [optax.trace(decay=config.b1)]
    raise UserError(
        f"unknown config.optimizer.name {config.name!r}; choose one of {', '.join(OPTIMIZERS)}"
    )


def _muon(config: ConfigDict) -> optax.GradientTransformation:
    """Muon for kernels of blocks, the preconditioner of adam for the rest."""

    def matrix(path: Any, leaf: Any) -> contrib.MuonDimensionNumbers | None:
        name = path_name(path)
        if not (in_block(name) and name.endswith("/kernel") and leaf.ndim in (2, 3)):
            return None
        # A kernel with heads is the matrix between features and all heads together.
        inputs = 2 if leaf.ndim == 3 and name.endswith("/out/kernel") else 1
        axes = tuple(range(leaf.ndim))
        return contrib.MuonDimensionNumbers(axes[:inputs], axes[inputs:])

    def matrices(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(matrix, params)

    def rescale(updates: Any, _: Any) -> Any:
        # An orthogonal matrix [I,O] has entries of root mean square 1 / sqrt(max(I, O)).
        return jax.tree.map(
            lambda u, axes: u * _MUON_RMS * max(_sizes(u, axes)) ** 0.5, updates, matrices(updates)
        )

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: "adam" if matrix(path, leaf) is None else "muon", params
        )

    muon = optax.chain(
        contrib.scale_by_muon(beta=config.b1, weight_dimension_numbers=matrices),
        optax.stateless(rescale),
    )
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon)
    return optax.partition({"muon": muon, "adam": adam}, labels)


def _sizes(update: jax.Array, axes: contrib.MuonDimensionNumbers) -> tuple[int, int]:
    """Of the matrix that a kernel is: the products of its input and of its output axes."""
    inputs, outputs = (math.prod(update.shape[axis] for axis in part) for part in axes)
    return inputs, outputs
