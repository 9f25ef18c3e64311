"""What a config's values must be, beyond their types; checked before a run touches anything.

Raises `UserError` that names the field, what it is and what it may be.
"""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from capjax.config import base
from capjax.errors import UserError

LONG_CAPTIONS = ("skip", "truncate")
SPIKE_ACTIONS = ("log", "skip", "stop")


def validate(config: ConfigDict) -> None:
    """Raises UserError for a field of the fixed sections whose value cannot work."""
    fields = base()
    for name in fields:
        if name not in config:
            raise UserError(f"the config lacks the field {name!r}: start it from config.base()")
    for name in ("steps", "batch_size", "accumulate_steps", "log_every"):
        if config[name] < 1:
            raise UserError(f"config.{name} must be at least 1, not {config[name]}")
    if config.batch_size % config.accumulate_steps:
        raise UserError(
            f"config.accumulate_steps={config.accumulate_steps} does not divide "
            f"config.batch_size={config.batch_size}"
        )
    if not 0 <= config.ema_decay < 1:
        raise UserError(f"config.ema_decay must be in [0, 1), not {config.ema_decay}")
    if not 0 <= config.data.max_bad_fraction < 1:
        raise UserError(
            f"config.data.max_bad_fraction must be in [0, 1), not {config.data.max_bad_fraction}"
        )
    if config.data.long_captions not in LONG_CAPTIONS:
        raise UserError(
            f"config.data.long_captions must be one of {', '.join(LONG_CAPTIONS)}, "
            f"not {config.data.long_captions!r}"
        )
    if config.seed < 0:
        raise UserError(f"config.seed must be 0 or more, not {config.seed}")
    for name, low in (
        ("checkpoint.every", 0),
        ("checkpoint.keep", 1),
        ("checkpoint.keep_best", 0),
        ("data.image_size", 1),
        ("watchdog.seconds", 0),
        ("spikes.window", 0),
        ("spikes.deviations", 0),
        ("profile.first_step", 1),
        ("profile.steps", 0),
    ):
        section, field = name.split(".")
        if config[section][field] < low:
            raise UserError(f"config.{name} must be at least {low}, not {config[section][field]}")
    if config.checkpoint.keep_best:
        _check_metric(config)
    if config.spikes.action not in SPIKE_ACTIONS:
        raise UserError(
            f"config.spikes.action must be one of {', '.join(SPIKE_ACTIONS)}, "
            f"not {config.spikes.action!r}"
        )
    if not math.isfinite(config.optimizer.learning_rate) or config.optimizer.learning_rate < 0:
        raise UserError("config.optimizer.learning_rate must be a finite number, 0 or more")


def _check_metric(config: ConfigDict) -> None:
    metric = config.checkpoint.best_metric
    if not metric:
        raise UserError(
            f"config.checkpoint.keep_best={config.checkpoint.keep_best} needs "
            "config.checkpoint.best_metric, the name of a metric in the log"
        )
    prefix, _, rest = metric.partition("/")
    if prefix == "evals" and rest.partition("/")[0] not in config.evals:
        raise UserError(
            f"config.checkpoint.best_metric={metric!r} is of an evaluator that config.evals does "
            f"not have; it has {', '.join(config.evals) or 'none'}"
        )
