"""A run back to a published form, which other libraries load.

The form is that of the checkpoint the run was imported from, or, for one trained from such a run
or from nothing, that of a checkpoint the user names: its family, names of tensors and config.json.
The folder that is written holds

    model.safetensors            or shards of it with their index; in bfloat16 on request. OpenCLIP
                                 looks for open_clip_model.safetensors, and reads no shards
    config.json, tokenizer ..    the small files as they were published, with the sizes and tokens
                                 that the run has
    README.md                    the model card: where the model comes from, how it was trained,
                                 what it measured, under which licence

Raises `UserError` for a run that does not have this form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from capjax import runs
from capjax.errors import UserError
from capjax.weights import families, preprocess, published_sizes, small_files, tokenizer_files
from capjax.weights.card import card
from capjax.weights.files.safetensors_writer import Promise, write
from capjax.weights.importing import DTYPES, ORIGIN, PUBLISHED, TENSORS, appearing
from capjax.weights.plan import CONFIG, TENSORS_FILE, Plan, Source, read_json
from capjax.weights.table import to_tensors

EMBEDDINGS = ("wte.weight", "embed_tokens.weight", "shared.weight", "word_embeddings.weight")
MAX_SHARD_BYTES = 5 * 10**9  # as Hugging Face's libraries cut them


def export(
    directory: Path | str,
    to: Path | str,
    *,
    like: Path | str | None = None,
    step: int | None = None,
    dtype: str = "",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    licence: str = "",
) -> Plan:
    """Writes the run in `directory` to the new folder `to`; the plan says in which form.

    like: an imported run or a published checkpoint whose form is taken. dtype: of the tensors;
    by default each has the type that it was published in.
    """
    run, to = runs.open_run(directory, step), Path(to)
    source, family = _form(Path(like) if like else _origin(run.directory))
    plan = families.recognise(source, family)
    _check_same_model(run, plan)
    with appearing(to) as folder:
        promises = list(_promises(plan, run.params, source, dtype))
        shards = max_shard_bytes if plan.file == TENSORS_FILE else None
        write(folder / plan.file, promises, {"format": "pt"}, shards)
        _write_small_files(source, plan, folder)
        tokenizer_files.write(folder, run, plan)
        if plan.image and plan.image["image_size"] != run.config.data.image_size:
            published_sizes.set_image_size(folder, run.config.data.image_size)
        rows = {p.shape[0] for p in promises if p.name.endswith(EMBEDDINGS) and _grown(p, source)}
        if rows:
            published_sizes.set_rows(folder, max(rows))
        (folder / "README.md").write_text(card(run, plan, source, licence))
    return plan


def _origin(directory: Path) -> Path:
    """The imported run that this one began as, or itself."""
    while not (directory / PUBLISHED).is_dir():
        begun = runs.read_config(directory).init_from
        if not begun or not Path(begun).is_dir():
            break
        directory = Path(begun)
    return directory


def _form(path: Path) -> tuple[Source, str]:
    """The checkpoint whose form is wanted, without its values where they are not at hand.

    With it the family that it was imported as, "" if it was not.
    """
    folder = path / PUBLISHED
    if not (folder / TENSORS).is_file():
        if (path / runs.CONFIG).is_file() and (path / runs.CHECKPOINTS).is_dir():
            raise UserError(
                f"the run {str(path)!r} was not imported, so its published form is not known: "
                "name a checkpoint or an imported run of this form with --like"
            )
        return families.open_source(path), ""
    described, origin = read_json(folder / TENSORS), read_json(folder / ORIGIN)
    tokenizer = path / runs.TOKENIZER
    source = Source(
        folder,
        {n: _outline(tuple(shape), kind) for n, (shape, kind) in described.items()},
        read_json(folder / CONFIG) or origin.get("config", {}),
        preprocess.read(folder),
        tokenizer if tokenizer.is_file() else None,
        origin.get("choices", {}),
    )
    return source, origin.get("family", "")


def _outline(shape: tuple[int, ...], kind: str) -> np.ndarray:
    """An array of this shape that takes no memory."""
    dtype = getattr(ml_dtypes, kind, None) or np.dtype(kind)
    return np.broadcast_to(np.zeros((), dtype), shape)


def _check_same_model(run: runs.Run, plan: Plan) -> None:
    if plan.model["name"] != run.config.model.name:
        raise UserError(
            f"the run's model is {run.config.model.name}, and checkpoints of the family "
            f"{plan.family} are read as {plan.model['name']}: choose another --like"
        )


def _promises(
    plan: Plan, params: Mapping[str, Any], source: Source, dtype: str
) -> Iterator[Promise]:
    """Of the tensors in the table, and of those that the published files hold once more."""
    if dtype and dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")

    def promise(name: str, shape: tuple[int, ...], array: Callable[[], np.ndarray]) -> Promise:
        if dtype:
            kind = np.dtype(DTYPES[dtype])
        else:
            kind = source.tensors[name].dtype if name in source.tensors else np.dtype(np.float32)
        return Promise(name, shape, kind, lambda: np.asarray(array(), kind))

    written = {}
    for name, shape, array in to_tensors(plan.table, params):
        written[name] = shape, array
        yield promise(name, shape, array)
    for name, original in plan.copies.items():
        if name in source.tensors and name not in written and original in written:
            yield promise(name, *written[original])


def _grown(promise: Promise, source: Source) -> bool:
    """Whether the embedding has another number of rows than the published one."""
    return promise.name in source.tensors and source.shape(promise.name)[0] != promise.shape[0]


def _write_small_files(source: Source, plan: Plan, folder: Path) -> None:
    small_files.copy(source.folder, folder, but=(TENSORS, ORIGIN, "README.md"))
    # llama2c's file holds the config itself; OpenAI's CLIP has none.
    missing = {CONFIG: source.config} if source.config else {}
    for name, contents in {**missing, **plan.files}.items():
        if not (folder / name).is_file():
            (folder / name).write_text(json.dumps(contents, indent=2))


def tensors_of(run: runs.Run, plan: Plan) -> Iterator[tuple[str, np.ndarray]]:
    """(name, tensor) of each tensor that the run would be published as."""
    for name, _, array in to_tensors(plan.table, jax.device_get(run.params)):
        yield name, np.asarray(array())
