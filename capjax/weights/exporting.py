"""A run back to a published form, which other libraries load.

The form is that of the checkpoint the run was imported from, or, for one trained from such a run
or from nothing, that of a checkpoint the user names: its family, names of tensors and config.json.
The folder that is written holds

    model.safetensors            or shards of it with their index; in bfloat16 on request
    config.json, tokenizer ..    the small files as they were published, sizes changed where they
                                 had to be
    README.md                    the model card: where the model comes from, how it was trained,
                                 what it measured, under which licence

Raises `UserError` for a run that does not have this form.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from capjax import runs
from capjax.errors import UserError
from capjax.weights import families
from capjax.weights.card import card
from capjax.weights.files.safetensors_writer import Promise, write
from capjax.weights.importing import DTYPES, ORIGIN, PUBLISHED, TENSORS, appearing
from capjax.weights.plan import Plan, Source, read_json
from capjax.weights.table import to_tensors

MODEL_FILE = "model.safetensors"
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
    source = _form(Path(like) if like else _origin(run.directory))
    plan = families.recognise(source)
    _check_same_model(run, plan)
    with appearing(to) as folder:
        promises = list(_promises(plan, run.params, source, dtype))
        write(folder / MODEL_FILE, promises, {"format": "pt"}, max_shard_bytes)
        _copy_small_files(source, folder)
        _adjust(folder / "config.json", promises)
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


def _form(path: Path) -> Source:
    """The checkpoint whose form is wanted, without its values where they are not at hand."""
    folder = path / PUBLISHED
    if not (folder / TENSORS).is_file():
        if (path / runs.CONFIG).is_file() and (path / runs.CHECKPOINTS).is_dir():
            raise UserError(
                f"the run {str(path)!r} was not imported, so its published form is not known: "
                "name a checkpoint or an imported run of this form with --like"
            )
        return families.open_source(path)
    described = read_json(folder / TENSORS)
    tensors = {n: _outline(tuple(shape), kind) for n, (shape, kind) in described.items()}
    tokenizer = path / runs.TOKENIZER
    config = read_json(folder / "config.json") or read_json(folder / ORIGIN).get("config", {})
    return Source(
        folder, tensors, config, read_json(folder / "preprocessor_config.json"), tokenizer
    )


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
    if dtype and dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    for name, shape, array in to_tensors(plan.table, params):
        if dtype:
            kind = np.dtype(DTYPES[dtype])
        else:
            kind = source.tensors[name].dtype if name in source.tensors else np.dtype(np.float32)
        yield Promise(name, shape, kind, lambda array=array, kind=kind: np.asarray(array(), kind))


def _copy_small_files(source: Source, folder: Path) -> None:
    for path in sorted(source.folder.iterdir()):
        ours = (TENSORS, ORIGIN, "README.md")
        text = path.suffix in (".json", ".txt", ".model", ".vocab") or path.name == "LICENSE"
        if path.is_file() and text and path.name not in ours and ".index." not in path.name:
            shutil.copyfile(path, folder / path.name)


def _adjust(path: Path, promises: list[Promise]) -> None:
    """Sets the vocabulary's size in config.json where embeddings have grown."""
    config = read_json(path)
    rows = {p.shape[0] for p in promises if p.name.endswith(EMBEDDINGS)}
    if config.get("vocab_size") and len(rows) == 1 and rows != {config["vocab_size"]}:
        config["vocab_size"] = rows.pop()
        path.write_text(json.dumps(config, indent=2))


def tensors_of(run: runs.Run, plan: Plan) -> Iterator[tuple[str, np.ndarray]]:
    """(name, tensor) of each tensor that the run would be published as."""
    for name, _, array in to_tensors(plan.table, jax.device_get(run.params)):
        yield name, np.asarray(array())
