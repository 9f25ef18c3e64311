"""Captions of pictures by a captioner of ours, at any guidance scale, as a stage.

Letters: B pictures of a batch, S side in pixels, K captions of a picture.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capjax.curate.stage import Fields
from capjax.curate.stages.runs import run_identity
from capjax.errors import UserError


class Caption:
    """Gives `output`, the best caption, or with several samples `{output}s`, all of them.

    run: a captioner's run directory; options: fields of `capjax.decode.options.Options`; prompt:
    what captions begin with; seed: of samples, which depend on the picture's key besides.
    """

    place, worker, cached = "worker", "models", True

    def __init__(
        self,
        run: Path | str,
        *,
        guidance_scale: float = 1.0,
        options: Mapping[str, Any] | None = None,
        prompt: str = "",
        seed: int = 0,
        output: str = "caption",
        batch_size: int = 16,
        version: str = "1",
        name: str = "caption",
    ):
        if guidance_scale < 0:
            raise UserError(f"stage {name!r}: guidance_scale={guidance_scale} must be 0 or more")
        self.name, self.version, self.batch_size = name, version, batch_size
        self.inputs = {"key": str, "image": np.ndarray}
        self._run, self._scale, self._prompt, self._seed = run, guidance_scale, prompt, seed
        self._options, self._output = dict(options or {}), output
        self._many = self._options.get("samples", 1) > 1
        self.outputs = {f"{output}s": list[str]} if self._many else {output: str}

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """Read once: the sum goes over the weights."""
        return {
            **run_identity(self._run),
            "guidance_scale": self._scale,
            "options": self._options,
            "prompt": self._prompt,
            "seed": self._seed,
        }

    def start(self) -> None:
        """Opens the run on this process's devices."""
        from capjax.decode.bulk import on_all_devices, whole_batch
        from capjax.decode.captioner import Captioner
        from capjax.decode.options import Options
        from capjax.runs import open_run

        run = open_run(self._run)
        self._captioner = Captioner(run.model, on_all_devices(run.params), run.tokenizer)
        self._resize = run.config.data.resize
        self._rows = whole_batch(self.batch_size, self.batch_size)
        try:
            self._how = Options(**self._options)
        except TypeError as error:
            names = ", ".join(field.name for field in dataclasses.fields(Options))
            raise UserError(f"stage {self.name!r}: options are {names} ({error})") from error

    def batch(self, rows: Sequence[Fields]) -> list[dict[str, Any]]:
        """Captions of up to B pictures."""
        from capjax.decode.bulk import picture_keys

        # Filled up to one size with the first picture: nothing is compiled for another.
        filled = [*rows, *[rows[0]] * (self._rows - len(rows))]
        images = to_squares([row["image"] for row in filled], self._captioner.model, self._resize)
        keys = None
        if self._how.sample:
            keys = picture_keys(self._seed, [row["key"] for row in filled])
        written = self._captioner.write_all(
            self._captioner.encode(images).context,
            self._scale,
            self._how,
            rng=keys,
            prompt=self._prompt,
        )
        if self._many:
            return [{f"{self._output}s": [c.text for c in group]} for group in written[: len(rows)]]
        return [{self._output: group[0].text} for group in written[: len(rows)]]


def to_squares(images: Sequence[np.ndarray], model: Any, resize: str) -> np.ndarray:
    """uint8 [H,W,3] each -> uint8 [B,S,S,3], as the model takes pictures."""
    from capjax.data.loader import to_size

    return np.stack([to_size(image, model.image_size, resize) for image in images])
