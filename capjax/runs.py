"""A run directory: what a training run leaves there, and how it is opened for inference.

    config.json       the config, complete
    tokenizer.model   the bytes from which the tokenizer is made again
    metrics.jsonl     see `capjax.logs`
    checkpoints/      see `capjax.checkpoint`
    lock              see `capjax.workdir_lock`

`prepare` sets one up (or checks that it belongs to the same run), `open_run` reads one.
Raises `UserError` for a directory that is no run, a run without a checkpoint, or files that do
not belong together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from capjax import config as config_lib
from capjax import special_tokens
from capjax.checkpoint import Checkpoints, replicated
from capjax.data.loader import Examples, TrainLoader
from capjax.data.token_rows import TokenRows, read_model
from capjax.errors import UserError
from capjax.models.init import init
from capjax.parallel import processes
from capjax.train_step import rng_for
from capjax.whole_file import whole_file

CONFIG, TOKENIZER, METRICS, CHECKPOINTS = (
    "config.json",
    "tokenizer.model",
    "metrics.jsonl",
    "checkpoints",
)

# What may differ when a run goes on: how long it lasts, how often it reports, where it runs.
RESUMABLE = (
    "steps",
    "log_every",
    "checkpoint.*",
    "evals.*.every",
    "watchdog.*",
    "spikes.*",  # turned on, as a rule, because of a spike
    "profile.*",
    "loggers.*",
    "data.num_threads",
    "mesh.*",
    "sharding",
)


@dataclass(frozen=True)
class Run:
    """A trained model, ready to be applied."""

    config: ConfigDict
    tokenizer: TokenRows
    model: Any
    params: Any  # nested dict of arrays, on the first device
    step: int
    directory: Path


def open_run(directory: Path | str, step: int | None = None, use_ema: bool = True) -> Run:
    """The run in `directory` at `step` (default: its latest checkpoint).

    `use_ema` takes the moving average of the parameters if the run kept one.
    """
    directory = Path(directory)
    config = read_config(directory)
    tokenizer = open_tokenizer(directory, config)
    model = make_model(config, tokenizer)
    shapes = jax.eval_shape(initializer(config, model), rng_for(0, "init"))
    # On one device: what applies the model decides how it is spread.
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params, step = load_params(directory, replicated(shapes, first), tokenizer, step, use_ema)
    return Run(config, tokenizer, model, params, step, directory)


def load_params(
    directory: Path,
    abstract: Any,
    tokenizer: TokenRows,
    step: int | None = None,
    use_ema: bool = True,
) -> tuple[Any, int]:
    """(parameters, step) of a run whose tokenizer is `tokenizer`.

    `abstract` is a tree of shapes with shardings: where the parameters go.
    """
    with Checkpoints(directory / CHECKPOINTS) as checkpoints:
        if step is None:
            step = checkpoints.latest
        if step is None:
            raise UserError(f"the run {str(directory)!r} has no checkpoint yet: train it first")
        params, host = checkpoints.restore_params(abstract, step, use_ema)
    check_tokenizer(directory, tokenizer, host)
    return params, step


def read_config(directory: Path | str) -> ConfigDict:
    """The config that the run was started with."""
    path = Path(directory) / CONFIG
    if not path.is_file():
        raise UserError(
            f"{str(directory)!r} is not a run directory: it holds no {CONFIG}; "
            "give the --workdir of a training run"
        )
    config = config_lib.from_json(path.read_text())
    with config.unlocked():
        defaults = config_lib.base()
        # What else a tokenizer is asked for depends on its kind.
        defaults.tokenizer = ConfigDict({"name": defaults.tokenizer.name})
        _add_missing(config, defaults)
    return config


def _add_missing(config: ConfigDict, defaults: ConfigDict) -> None:
    """Fields younger than the run: a new field's default is what was done before there was one."""
    for name, value in defaults.items():
        if name not in config:
            config[name] = value
        elif isinstance(value, ConfigDict):
            _add_missing(config[name], value)


def open_tokenizer(directory: Path, config: ConfigDict) -> TokenRows | None:
    """The tokenizer of the run in `directory`, from the bytes that the run keeps.

    None for an imported model that reads no text.
    """
    if not config.tokenizer.name:
        return None
    model = read_model(directory / TOKENIZER)
    return config_lib.instantiate(config.tokenizer, "reopen", where="config.tokenizer", model=model)


def check_tokenizer(directory: Path, tokenizer: TokenRows, host: dict[str, Any]) -> None:
    """Raises UserError unless the checkpoint was trained with this tokenizer."""
    if host["tokenizer"] != fingerprint(tokenizer):
        raise UserError(
            f"{str(directory / TOKENIZER)!r} is not the tokenizer that the checkpoint of this run "
            f"was trained with: put the file back that belongs to it"
        )


def tokenizer_of(directory: Path | str) -> dict[str, Any]:
    """The config section by which another run gets the tokenizer of the run in `directory`."""
    directory = Path(directory)
    section = read_config(directory).tokenizer.to_dict()
    if "path" not in section:
        raise UserError(
            f"the tokenizer of the run {str(directory)!r} was trained on its own captions: set "
            "config.init_from to take it over with all parameters"
        )
    return section | {"path": str(directory / TOKENIZER)}


def fingerprint(tokenizer: TokenRows | None) -> str:
    """The tokenizer's own; "" if there is none."""
    return "" if tokenizer is None else tokenizer.fingerprint


def prepare(directory: Path, config: ConfigDict, source: Any, started: bool) -> TokenRows:
    """Writes the config and the tokenizer, or checks them if the run has `started`.

    A run has started once it has a checkpoint: before, a config may be mended and tried again.
    The tokenizer is that of `config.init_from`, or made anew; if its kind is trained, then on the
    captions of `source`.
    """
    if started:
        _check_same(directory, config)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / CONFIG, config_lib.to_json(config).encode())
        if not started:
            _write(directory / TOKENIZER, _new_tokenizer(config, source))
    except OSError as error:
        raise UserError(f"cannot write to {str(directory)!r}: {error.strerror}") from error
    return open_tokenizer(directory, config)


def prepare_together(directory: Path, config: ConfigDict, source: Any, started: bool) -> TokenRows:
    """`prepare` by process 0, whose tokenizer the other processes then read."""
    what = f"to prepare {str(directory)!r}"
    tokenizer = processes.first(what, lambda: prepare(directory, config, source, started))
    if processes.is_first():
        return tokenizer
    if not (directory / CONFIG).is_file():
        raise UserError(
            f"process {jax.process_index()} does not see {str(directory / CONFIG)!r}, which "
            "process 0 has written: choose a --workdir on storage that all hosts share"
        )
    return open_tokenizer(directory, config)


def make_model(config: ConfigDict, tokenizer: TokenRows | None) -> Any:
    """The model of the config, for this tokenizer's vocabulary."""
    sizes = {"image_size": config.data.image_size}
    if tokenizer is not None:
        sizes |= {"vocab_size": tokenizer.vocab_size, "max_length": tokenizer.max_length}
    model = config_lib.instantiate(config.model, "Model", where="config.model", if_taken=sizes)
    if tokenizer is None or special_tokens.of(model) == tokenizer.special_tokens:
        return model
    if not hasattr(model, "special_tokens"):
        raise UserError(
            f"the model {config.model.name} has no field special_tokens, so it cannot read rows "
            f"of {config.tokenizer.name}, whose special ids are {tokenizer.special_tokens}: choose "
            "another model or tokenizer"
        )
    return model.clone(special_tokens=tokenizer.special_tokens)


def initializer(config: ConfigDict, model: Any) -> Callable[[jax.Array], Any]:
    """What makes first parameters from a key: the task, or the model if it has no task."""
    if config.task.name:
        return make_task(config, model).init
    return functools.partial(init, model)


def check_prefixes(model: Any, source: Any) -> None:
    """Raises UserError unless the model's text prefixes are the sources of the mixture, in order.

    Training finds a text's prefix by the number of its source.
    """
    prefixes = tuple(getattr(model, "prefixes", ()))
    names = tuple(getattr(source, "names", ()))
    if prefixes and prefixes != names:
        raise UserError(
            f"config.model.prefixes are {', '.join(prefixes)} and the sources of the training data "
            f"{', '.join(names) or 'have no names'}: train on a capjax.data.mixture and list its "
            "sources as the prefixes, in sorted order"
        )


def make_task(config: ConfigDict, model: Any, tokenizer: TokenRows | None = None) -> Any:
    """The task of the config on this model; to train, a task may need the tokenizer."""
    given = {} if tokenizer is None else {"tokenizer": tokenizer}
    return config_lib.instantiate(
        config.task, "Task", where="config.task", if_taken=given, model=model
    )


def make_loader(
    config: ConfigDict, source: Any, tokenizer: TokenRows, share: tuple[int, int] = (0, 1)
) -> TrainLoader:
    """The training batches; `share` (i, n) is the part of each that this process reads."""
    data = config.data
    examples = Examples(
        source,
        tokenizer,
        seed=config.seed,
        batch_size=config.batch_size,
        image_size=data.image_size,
        resize=data.resize,
        crop_scale=data.crop_scale,
        flip=data.flip,
        flip_sided=data.flip_sided,
        captions=data.captions.to_dict(),
        rand_augment=data.rand_augment.to_dict(),
        truncate=data.long_captions == "truncate",
        process_index=share[0],
        process_count=share[1],
    )
    return TrainLoader(
        examples, num_threads=data.num_threads, max_bad_fraction=data.max_bad_fraction
    )


def _check_same(directory: Path, config: ConfigDict) -> None:
    before = read_config(directory)
    changed = config_lib.differences(before, config, ignore=RESUMABLE)
    if changed:
        raise UserError(
            f"{str(directory)!r} holds a run with another config ({'; '.join(changed)}): "
            "choose another --workdir, or give the config it was started with"
        )


def _new_tokenizer(config: ConfigDict, source: Any) -> bytes:
    if config.init_from:
        return _tokenizer_of(Path(config.init_from), config, source)
    return _make_tokenizer(config, source).model


def _make_tokenizer(config: ConfigDict, source: Any) -> TokenRows:
    def captions(num_records: int) -> Iterator[str]:
        # Spread over the whole set: sources are often sorted.
        count = min(len(source), num_records)
        indices = np.linspace(0, len(source) - 1, count).round().astype(int) if count else []
        return (caption for index in indices for caption in source.captions(int(index)))

    return config_lib.instantiate(
        config.tokenizer, "make", where="config.tokenizer", captions=captions
    )


def _tokenizer_of(directory: Path, config: ConfigDict, source: Any) -> bytes:
    """The tokenizer of the run to start from, which must be what the config asks for."""
    before = read_config(directory)
    changed = config_lib.differences(
        before.tokenizer, config.tokenizer, ignore=("num_records", "path")
    )
    tokenizer = open_tokenizer(directory, before)
    path = config.tokenizer.get("path", "")
    # The vocabulary may lie elsewhere by now; another file must not be passed over in silence.
    moved = not changed and path and path != before.tokenizer.get("path", "")
    if moved and _make_tokenizer(config, source).fingerprint != tokenizer.fingerprint:
        changed = [f"path: {path!r} holds another vocabulary"]
    if changed:
        raise UserError(
            f"config.tokenizer differs from that of config.init_from={str(directory)!r} "
            f"({'; '.join(changed)}): parameters can only be taken over with their tokenizer"
        )
    return tokenizer.model


def _write(path: Path, data: bytes) -> None:
    with whole_file(path, "wb") as file:
        file.write(data)
