"""Pictures with class names, embedded: what classifiers are evaluated on.

Any source whose records have a class name (`label`, a string) will do: a manifest with lines
{"image": ..., "label": "dog"}, or generated scenes.

Letters: N pictures, S side in pixels, D features, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from capjax.config import instantiate
from capjax.data.loader import record_batches, stack_images
from capjax.data.skips import SkipBudget
from capjax.errors import BadRecord, UserError
from capjax.evals.encoder import Encoder


@dataclasses.dataclass(frozen=True)
class Labelled:
    """keys: of the N pictures. labels: their class names. features: float32 [N, D]."""

    keys: list[str]
    labels: list[str]
    features: np.ndarray

    def numbers(self, classes: Sequence[str]) -> np.ndarray:
        """The place of each label among `classes`: int64 [N].

        Raises:
          UserError: labels that are none of the classes (how many, the first three).
        """
        place = {name: i for i, name in enumerate(classes)}
        unknown = sorted(set(self.labels) - set(place))
        if unknown:
            raise UserError(
                f"{len(unknown)} labels of the data are no classes ({', '.join(unknown[:3])}):"
                " add them to the classes or leave their pictures out"
            )
        return np.array([place[label] for label in self.labels], np.int64)


class LabelledData:
    """A source of labelled pictures; `embed` runs an encoder over it.

    data: a source section ({name: import path, ...}). label: the field with the class name. limit:
    at most so many records, 0 for all.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        *,
        image_size: int,
        label: str = "label",
        batch_size: int = 64,
        resize: str = "squash",
        limit: int = 0,
        max_bad_fraction: float = 0.0,
    ):
        self.source = instantiate(data, "Source", where="the labelled data")
        self.image_size, self.label = image_size, label
        self.batch_size, self.resize, self.limit = batch_size, resize, limit
        self.max_bad_fraction = max_bad_fraction

    def embed(self, encoder: Encoder, features: bool = False) -> Labelled:
        """Unit embeddings of all pictures, or with `features` what the projection is made from.

        Raises:
          UserError: a record without a class name, or no usable record.
        """
        embed = encoder.image_features if features else encoder.images
        count = min(len(self.source), self.limit or len(self.source))
        skips = SkipBudget(count, self.max_bad_fraction)
        keys, labels, rows = [], [], []
        with tqdm(total=count, unit="picture", desc="embedding", disable=None, delay=3) as bar:
            for records in record_batches(self.source, self.batch_size, skips, count):
                bar.update(len(records))
                for record in records:
                    name = record.get(self.label)
                    if not isinstance(name, str) or not name:
                        raise BadRecord(record["key"], f"has no class name as its {self.label!r}")
                    labels.append(name)
                keys += [record["key"] for record in records]
                images = stack_images(records, len(records), self.image_size, self.resize)
                rows.append(embed(images))
        if not keys:
            raise UserError("no record of the labelled data could be used")
        return Labelled(keys, labels, np.concatenate(rows))
