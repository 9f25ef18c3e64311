"""Many named classes under captions that hardly ever name them: a stand-in for Stanford Dogs.

The paper's Table B.2 asks how often captions name one of 120 breeds, and how often rightly, when a
captioner that mostly read "a dog" is guided. Here the classes are the 24 kinds of generated shapes
in two sizes, eleven colours and four textures; a caption is "there is a KIND here" or, four times
in five, "there is a shape here". A captioner learns the kinds from captions that all name them
(`generic=0`), as the paper's did in pretraining, before it learns not to say them. `names` measures
any captions by any list of class names.

Raises `UserError` for labels and captions of other numbers, a label that is no class, and a share
that is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from capjax.data import scenes
from capjax.data.scenes.vocabulary import SHAPES, article
from capjax.errors import UserError

GENERIC = "there is a shape here"
CAPTIONS = 5  # of each picture
GENERIC_SHARE = 0.8


class Source:
    """`size` records {key, image, captions, label}; the label is the kind of the only object.

    generic: the share of captions that do not name it.
    """

    def __init__(
        self,
        split: str = "train",
        size: int = 20_000,
        image_size: int = 32,
        seed: int = 0,
        generic: float = GENERIC_SHARE,
    ):
        if not 0 <= generic <= 1:
            raise UserError(f"generic={generic} is a share: give a number from 0 to 1")
        self._generic = generic
        self._scenes = scenes.Source(
            seed=seed,
            size=size,
            split=split,
            image_size=image_size,
            max_objects=1,
            shapes=SHAPES,
            backgrounds=("plain",),
            captions="toy_generic",
            captions_per_image=1,
        )
        self._seed = (seed, scenes.source.SPLITS.index(split))

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._scenes[index]
        label = record["graph"].objects[0].shape
        return {
            "key": record["key"],
            "image": record["image"],
            "label": label,
            "captions": self._write(index, label),
        }

    def captions(self, index: int) -> list[str]:
        """Captions about some class: what a tokenizer should know, without drawing a picture."""
        return self._write(index, SHAPES[index % len(SHAPES)])

    def _write(self, index: int, label: str) -> list[str]:
        rng = np.random.default_rng((*self._seed, index))
        named = f"there is {article(label)} {label} here"
        return [GENERIC if rng.random() < self._generic else named for _ in range(CAPTIONS)]


def names(
    captions: Sequence[str], labels: Sequence[str], classes: Sequence[str]
) -> dict[str, float]:
    """`mentioned`: the share of captions that contain a class name, as whole words in any case;
    `correct`: the share of these that contain the right one (nan where there are none)."""
    if len(captions) != len(labels):
        raise UserError(
            f"there are {len(captions)} captions and {len(labels)} labels: give as many"
        )
    plain = {name: _plain(name) for name in classes}
    for label in labels:
        if label not in plain:
            raise UserError(f"the label {label!r} is none of the {len(plain)} class names")
    # A longer name takes its words: who says "toy poodle" does not say "poodle".
    pattern = re.compile(
        r"\b("
        + "|".join(map(re.escape, sorted(plain.values(), key=len, reverse=True)))
        + r")(?:e?s)?\b"
    )
    found = [set(pattern.findall(_plain(caption))) for caption in captions]
    right = [plain[label] in said for label, said in zip(labels, found, strict=True) if said]
    return {
        "mentioned": len(right) / max(1, len(captions)),
        "correct": float(np.mean(right)) if right else float("nan"),
    }


def _plain(text: str) -> str:
    """Lower case, words apart by one blank: "Boston_bull" -> "boston bull"."""
    return " ".join(re.findall(r"[\w']+", text.replace("_", " ").lower()))
