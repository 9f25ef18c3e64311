"""What the builders of this folder share: a TFDS builder of pictures with captions.

A builder says two things: its `EXTRA` features, and `splits(folder)`, the records
{key, image: bytes, captions, ...} of each split of what lies in the user's folder. TFDS then
shuffles by key, shards, and writes.

Two things keep TensorFlow out: pictures are given as encoded bytes, and the description stands here
and not in the files that TFDS would look for beside the module.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from capjax.errors import UserError

Record = Mapping[str, Any]


class Captioned(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose subclasses say what their features and splits are."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""
    EXTRA: Mapping[str, Any] = {}
    # Where TFDS would look for checksums of downloads, of which there are none. It finds the place
    # with importlib_resources, which it does not declare; None says that there is no such place.
    code_path = None

    def splits(self, folder: str) -> Mapping[str, Iterable[Record]]:
        """The records of each split; raises `UserError` where the folder lacks what is needed."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "key": tfds.features.Text(),
                    **self.EXTRA,
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        splits = self.splits(os.fspath(dl_manager.manual_dir))
        return {name: self._generate_examples(records) for name, records in splits.items()}

    def _generate_examples(self, records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
        wanted = self.info.features
        for record in records:
            yield record["key"], {name: record[name] for name in wanted}


def read(path: str | os.PathLike) -> bytes:
    """The bytes of a picture's file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"the picture {os.fspath(path)} cannot be read: {error.strerror}") from None


def pictures_below(folder: str | os.PathLike) -> dict[str, str]:
    """{file name: path} of all pictures in the folder and its folders."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp")):
                found[name] = os.path.join(parent, name)
    return found
