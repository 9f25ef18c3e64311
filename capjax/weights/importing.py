"""A published checkpoint as a run of capjax: its model, tokenizer and preprocessing.

`load` gives the model with its parameters on devices, read from the files part by part, so that
the host needs room for the parts of its own devices and one tensor. `import_checkpoint` writes
them as a run directory, which every command takes like one that was trained here:

    config.json       model, tokenizer, image size and resize rule of the checkpoint
    tokenizer.model   see `capjax.runs`
    checkpoints/0     the parameters
    published/        config.json and the other small files as they were, and the names, shapes and
                      types of the tensors: from these the run can be exported again

Raises `UserError` for what cannot be imported; nothing is left behind then.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from capjax import config as config_lib
from capjax import runs
from capjax.checkpoint import Checkpoints
from capjax.checksums import sha256
from capjax.errors import UserError
from capjax.parallel.mesh import make_mesh
from capjax.parallel.sharding import Rules, parameter_shardings
from capjax.train_step import rng_for
from capjax.weights import families, small_files, tokenizer_files
from capjax.weights.adapt import fit, fit_positions
from capjax.weights.plan import Plan, Source
from capjax.weights.table import place

PUBLISHED, TENSORS, ORIGIN = "published", "tensors.json", "origin.json"
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
LEAST_USED = 0.9  # of an embedding's rows; published ones are a few hundred longer than needed
MOST_UNUSED = 512  # rows of a small one: T5's hundred sentinels, rounding up


class Loaded(NamedTuple):
    """A checkpoint in memory."""

    plan: Plan
    config: ConfigDict
    tokenizer: Any  # None: it reads no text
    model: Any
    params: Any  # nested dict of arrays on devices


def load(
    path: Path | str,
    *,
    family: str = "",
    tokenizer: Path | str | None = None,
    image_size: int | None = None,
    add_tokens: Sequence[str] = (),
    dtype: str = "float32",
    mesh: Mesh | None = None,
    rules: Rules = ((".*", "fsdp"),),
) -> Loaded:
    """The checkpoint at `path`, its parameters of type `dtype` spread over the mesh by `rules`.

    image_size: where it differs from the checkpoint's, positions are resampled. add_tokens: new
    ones of the tokenizer, for which embeddings grow. mesh: by default one over all devices.
    """
    return load_source(
        families.open_source(path, tokenizer),
        family=family,
        image_size=image_size,
        add_tokens=add_tokens,
        dtype=dtype,
        mesh=mesh,
        rules=rules,
    )


def load_source(
    source: Source,
    *,
    family: str = "",
    image_size: int | None = None,
    add_tokens: Sequence[str] = (),
    dtype: str = "float32",
    mesh: Mesh | None = None,
    rules: Rules = ((".*", "fsdp"),),
) -> Loaded:
    """As `load`, of a checkpoint that is open already."""
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    plan = families.recognise(source, family)
    config = run_config(plan, image_size, add_tokens)
    tokenizer = None
    if plan.tokenizer is not None:
        tokenizer = config_lib.instantiate(
            config.tokenizer, "make", where="config.tokenizer", captions=None
        )
        _check_vocabulary(config, tokenizer, add_tokens)
    model = runs.make_model(config, tokenizer)
    mesh = mesh or make_mesh({"data": 1, "fsdp": -1})
    shapes = jax.eval_shape(runs.initializer(config, model), rng_for(0, "init"))
    abstract = jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, DTYPES[dtype], sharding=sharding),
        shapes,
        parameter_shardings(rules, shapes, mesh),
    )
    grows = fit if add_tokens else fit_positions
    params = place(plan.table, abstract, source.tensors, plan.unread, grows)
    return Loaded(plan, config, tokenizer, model, params)


def run_config(
    plan: Plan, image_size: int | None = None, add_tokens: Sequence[str] = ()
) -> ConfigDict:
    """The config of a run with the plan's sections."""
    config = config_lib.base()
    with config.unlocked():
        config.model = ConfigDict(dict(plan.model))
        config.task = ConfigDict(dict(plan.task or {"name": ""}))
        config.tokenizer = ConfigDict(tokenizer_files.grown(plan, add_tokens))
    if plan.image is None:
        if image_size:
            raise UserError(f"a checkpoint of the family {plan.family} has no pictures to resize")
    else:
        config.data.image_size = image_size or plan.image["image_size"]
        config.data.resize = plan.image["resize"]
    return config_lib.as_config(config)


def _check_vocabulary(config: ConfigDict, tokenizer: Any, add_tokens: Sequence[str]) -> None:
    """Makes room for new tokens in a language model's embedding, and refuses another's tokenizer.

    Of other models the embedding has as many rows as the tokenizer has tokens, or does not fit.
    """
    rows = config.model.get("overrides", {}).get("rows")
    if not rows:
        return
    published = tokenizer.vocab_size - len(add_tokens)
    if published > rows:
        raise UserError(
            f"the tokenizer has {published} tokens and the checkpoint's embedding {rows} rows: "
            "give the tokenizer that it was published with"
        )
    if published < LEAST_USED * rows and published < rows - MOST_UNUSED:
        warnings.warn(
            f"the tokenizer has {published} tokens and the checkpoint's embedding {rows} rows: is "
            "it the one that it was published with?",
            stacklevel=3,
        )
    if tokenizer.vocab_size > rows:
        with config.unlocked():
            config.model.overrides.rows = tokenizer.vocab_size


def import_checkpoint(path: Path | str, directory: Path | str, **options: Any) -> Loaded:
    """Writes the checkpoint at `path` as a run to `directory`, which must not be there yet.

    `options` are those of `load`.
    """
    directory = Path(directory)
    source = families.open_source(path, options.pop("tokenizer", None))
    with appearing(directory) as partial:
        loaded = load_source(source, **options)
        (partial / runs.CONFIG).write_text(config_lib.to_json(loaded.config))
        if loaded.tokenizer is not None:
            (partial / runs.TOKENIZER).write_bytes(loaded.tokenizer.model)
        _keep_published(source, loaded.plan, partial / PUBLISHED)
        with Checkpoints(partial / runs.CHECKPOINTS, writer=True) as checkpoints:
            host = {"tokenizer": runs.fingerprint(loaded.tokenizer)}
            checkpoints.save_params(0, loaded.params, host)
    return loaded


@contextmanager
def appearing(directory: Path) -> Iterator[Path]:
    """A directory to fill that takes the name `directory` when the block ends, or vanishes."""
    if directory.exists():
        raise UserError(f"{str(directory)!r} is there already: choose another --to, or remove it")
    partial = directory.with_name(directory.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of an import that was killed
        partial.mkdir(parents=True)
        yield partial
        partial.rename(directory)
    except OSError as error:
        raise UserError(f"cannot write {str(directory)!r}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _keep_published(source: Source, plan: Plan, folder: Path) -> None:
    """What an export needs besides the parameters, and where they came from."""
    folder.mkdir()
    tensors, files = source.tensors, getattr(source.tensors, "files", ())
    small_files.copy(source.folder, folder)
    described = {n: [list(tensors[n].shape), str(tensors[n].dtype)] for n in tensors}
    (folder / TENSORS).write_text(json.dumps(described))
    origin = {
        "family": plan.family,
        "config": dict(source.config),
        "choices": dict(plan.choices),
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files
        },
    }
    (folder / ORIGIN).write_text(json.dumps(origin, indent=2))
