"""CLIPScore of captions and embeddings of pictures or texts, by any encoder run of ours.

Letters: B pictures, K captions of a picture, N texts, S side in pixels, E embedding width.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capjax.curate.stage import Fields
from capjax.curate.stages.captioning import to_squares
from capjax.curate.stages.runs import run_identity
from capjax.errors import UserError


class Encoding:
    """A stage with a dual encoder."""

    place, worker, cached = "worker", "models", True

    def __init__(self, run: Path | str, name: str, version: str, batch_size: int):
        self._run, self.name, self.version, self.batch_size = run, name, version, batch_size

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """Read once: the sum goes over the weights."""
        return {**run_identity(self._run), **self._more()}

    def _more(self) -> dict[str, Any]:
        return {}

    def start(self) -> None:
        """Opens the run on this process's devices."""
        from capjax.decode.bulk import on_all_devices, whole_batch
        from capjax.evals.encoder import Encoder
        from capjax.runs import open_run

        run = open_run(self._run)
        if not hasattr(type(run.model), "embed_text"):
            raise UserError(f"stage {self.name!r}: {str(self._run)!r} is no run of a dual encoder")
        size = whole_batch(self.batch_size, self.batch_size)
        self._encoder = Encoder(run.model, on_all_devices(run.params), run.tokenizer, size)
        self._resize = run.config.data.resize

    def _squares(self, rows: Sequence[Fields]) -> np.ndarray:
        """uint8 [B,S,S,3]"""
        return to_squares([row["image"] for row in rows], self._encoder.model, self._resize)

    def _images(self, rows: Sequence[Fields]) -> np.ndarray:
        """[B,E]"""
        return self._encoder.images(self._squares(rows))


class Captions:
    """The captions of B pictures as one list, and what is told of each back to its picture.

    field: of the text, or with several=True of the texts.
    """

    def __init__(self, field: str, several: bool):
        self.field, self.several = field, several
        self.kind = list[str] if several else str

    def flat(self, rows: Sequence[Fields]) -> tuple[list[str], np.ndarray]:
        """(N captions, the number int [N] of each one's picture)."""
        texts = [row[self.field] for row in rows]
        groups = texts if self.several else [[text] for text in texts]
        owner = np.repeat(np.arange(len(rows)), [len(group) for group in groups])
        return [text for group in groups for text in group], owner

    def told(self, scores: np.ndarray, owner: np.ndarray, pictures: int) -> list[Any]:
        """[N] -> for each picture its number, or its numbers."""
        # Rounded, so that the last digits do not tell with whom a record shared its batch.
        own = [np.round(scores[owner == i].astype(float), 6).tolist() for i in range(pictures)]
        return own if self.several else [one[0] for one in own]


class ClipScore(Encoding):
    """2.5 max(cosine, 0) of a picture with its caption, or with each of several.

    captions: a field of text, or with several=True of texts; prefix: what is put before each (the
    paper's tool puts "A photo depicts "). Gives `output`, a number or numbers.
    """

    def __init__(
        self,
        run: Path | str,
        captions: str = "caption",
        *,
        several: bool = False,
        output: str = "clipscore",
        prefix: str = "",
        batch_size: int = 64,
        version: str = "1",
        name: str = "",
    ):
        super().__init__(run, name or f"clipscore of {captions}", version, batch_size)
        self._captions, self._output = Captions(captions, several), output
        self._prefix = prefix
        self.inputs = {"image": np.ndarray, captions: self._captions.kind}
        self.outputs = {output: list[float] if several else float}

    def _more(self) -> dict[str, Any]:
        return {"prefix": self._prefix}

    def batch(self, rows: Sequence[Fields]) -> list[dict[str, Any]]:
        """Scores of B pictures."""
        from capjax.metrics.clipscore import clip_score

        texts, owner = self._captions.flat(rows)
        scores = np.zeros(0)
        if texts:
            embedded = self._encoder.texts([self._prefix + text for text in texts])
            scores = clip_score(self._images(rows)[owner], embedded)
        return [{self._output: told} for told in self._captions.told(scores, owner, len(rows))]


class Embed(Encoding):
    """The unit vector of a picture, or of a text where `field` is another than "image"."""

    def __init__(
        self,
        run: Path | str,
        field: str = "image",
        *,
        output: str = "embedding",
        batch_size: int = 64,
        version: str = "1",
        name: str = "",
    ):
        super().__init__(run, name or f"embed {field}", version, batch_size)
        self._field, self._output = field, output
        self.inputs = {field: np.ndarray if field == "image" else str}
        self.outputs = {output: list[float]}

    def batch(self, rows: Sequence[Fields]) -> list[dict[str, Any]]:
        """Embeddings of B pictures or texts."""
        if self._field == "image":
            found = self._images(rows)
        else:
            found = self._encoder.texts([row[self._field] for row in rows])
        return [{self._output: vector} for vector in np.round(found, 6).astype(float).tolist()]
