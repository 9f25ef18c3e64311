"""TFDS builders of sets that TFDS lacks, from the user's own copies; none needs TensorFlow.

    flickr8k, flickr30k     the original files, or the packs of captions_<split>.jsonl and tars
    conceptual_captions     WebDataset tars, as img2dataset writes them (CC3M, CC12M)
    nocaps                  the published JSON of captions, and the pictures it names

    prepare("flickr8k", files="downloads/flickr8k", data_dir="~/tensorflow_datasets")
    tfds_source.Source("flickr8k", split="train")

Pictures are stored byte for byte; records have the features image, captions, key and what the
builder adds. What each expects in `files` stands at the top of its module. They are TFDS builders
like any other; the `tfds` command itself does not start without TensorFlow.
"""

from __future__ import annotations

import importlib
import os
import pkgutil

from capjax.data.tfds_folder import FORMAT
from capjax.data.tfds_source import import_tfds
from capjax.errors import UserError

_HELPERS = ("captioned", "flickr_files")


def names() -> list[str]:
    """The names that `prepare` knows."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _HELPERS)


def prepare(
    name: str,
    files: str | os.PathLike,
    data_dir: str | os.PathLike = "~/tensorflow_datasets",
    limit: int | None = None,
) -> str:
    """Prepares a set from the folder `files` and returns the folder of the prepared version.

    limit: at most so many records of each split. A set that is there already is left as it is;
    TFDS writes to a folder of its own first, so that an interrupted preparation leaves no set.

    Raises `UserError` for an unknown name, a missing folder, and files that the builder cannot use.
    """
    tfds = import_tfds()
    if name not in names():
        raise UserError(f"there is no builder {name!r}; choose one of {', '.join(names())}")
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit} keeps no record; use a positive number or leave it out")
    if not os.path.isdir(files):
        raise UserError(f"there is no folder {os.fspath(files)!r} to prepare {name} from")
    module = importlib.import_module(f"{__name__}.{name}")
    builder = module.Builder(data_dir=os.path.expanduser(data_dir), file_format=FORMAT)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=os.path.abspath(files), max_examples_per_split=limit
        )
    )
    return os.fspath(builder.data_path)
