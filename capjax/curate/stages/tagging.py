"""Tags of pictures by any encoder run of ours: zero-shot, from a list of names.

Letters: B pictures, V tags, T templates, E embedding width.
Raises `UserError` for a list or templates that make no tagger.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capjax.curate.stage import Fields
from capjax.curate.stages.encoding import Encoding
from capjax.errors import UserError


class Tag(Encoding):
    """Gives `output`, the tags that fit best, and `{output}_scores`, their cosines.

    A tag's vector is the mean of its sentences, one for each template with {} for the name (CLIP,
    arXiv 2103.00020, section 3.1.4). At most `most` tags are given, of those whose cosine with the
    picture reaches `least`.
    """

    def __init__(
        self,
        run: Path | str,
        tags: Sequence[str],
        *,
        templates: Sequence[str] = ("a photo of a {}",),
        most: int = 5,
        least: float = -1.0,
        output: str = "tags",
        batch_size: int = 64,
        version: str = "1",
        name: str = "tag",
    ):
        super().__init__(run, name, version, batch_size)
        if not tags or len(set(tags)) < len(tags):
            raise UserError(f"stage {name!r} needs at least one tag, each of them once")
        if not templates or any("{}" not in template for template in templates):
            raise UserError(f"stage {name!r}: each template needs {{}} for the name of the tag")
        if most < 1:
            raise UserError(f"stage {name!r}: most={most} tags are none, give at least 1")
        self._tags, self._templates = tuple(tags), tuple(templates)
        self._most, self._least, self._output = most, least, output
        self.inputs = {"image": np.ndarray}
        self.outputs = {output: list[str], f"{output}_scores": list[float]}

    def _more(self) -> dict[str, Any]:
        return {
            "tags": list(self._tags),
            "templates": list(self._templates),
            "most": self._most,
            "least": self._least,
        }

    def start(self) -> None:
        """Opens the run and embeds the tags."""
        super().start()
        sentences = [t.replace("{}", tag) for tag in self._tags for t in self._templates]
        found = self._encoder.texts(sentences).reshape(len(self._tags), len(self._templates), -1)
        means = found.mean(1)
        self._vectors = means / np.linalg.norm(means, axis=1, keepdims=True)  # [V,E]

    def batch(self, rows: Sequence[Fields]) -> list[dict[str, Any]]:
        """Tags of B pictures."""
        # Rounded before they are compared, as in `encoding`: no batch decides a tie.
        scores = np.round(self._images(rows) @ self._vectors.T, 6)  # [B,V]
        told = []
        for own in scores:
            first = np.argsort(-own, kind="stable")[: self._most]
            best = first[own[first] >= self._least]
            told.append(
                {
                    self._output: [self._tags[i] for i in best],
                    f"{self._output}_scores": own[best].astype(float).tolist(),
                }
            )
        return told
