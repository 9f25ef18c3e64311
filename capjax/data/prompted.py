"""Labelled pictures as pairs: the class name in a sentence stands in place of a caption.

    config.data.train = {
        "name": "capjax.data.prompted",
        "data": {"name": "capjax.data.manifest", "path": ...},  # records with a `label`
        "classes": "classes.txt",
    }

A record's captions are its class name in every template, and training draws one of them each time
(CLIP, arXiv 2103.00020, section 3.1.4; prefix conditioning, arXiv 2206.01125). The record gains
`class_id`, the place of the class, which the UniCL loss reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capjax.config import instantiate
from capjax.data import prompts
from capjax.data.classes import class_names
from capjax.errors import BadRecord


class Source:
    """The records of `data`, whose field `label` holds a class name.

    classes: the names, or a file of them. templates: sentences with {}, a file of them, or "" for
    the general ones of `capjax.data.prompts`.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        classes: Sequence[str] | str,
        templates: Sequence[str] | str = "",
        label: str = "label",
    ):
        self.source = instantiate(data, "Source", where="the labelled data")
        self.classes = {name: i for i, name in enumerate(class_names(classes))}
        self.templates = prompts.resolve(templates)
        self.label = label

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.source[index]
        name = record.get(self.label)
        if name not in self.classes:
            raise BadRecord(record["key"], f"its {self.label!r} is {name!r}, which is no class")
        captions = [prompts.fill(template, name) for template in self.templates]
        return {**record, "captions": captions, "class_id": self.classes[name]}

    def captions(self, index: int) -> list[str]:
        """Sentences about some class: what a tokenizer should know, without opening a picture."""
        name = list(self.classes)[index % len(self.classes)]
        return [prompts.fill(template, name) for template in self.templates]
