"""What the page answers to a picture and its settings, without the page: a path in, HTML out.

A picture is encoded once and kept: moving the slider decodes anew, all scales side by side in one
batch of always the same size, so that nothing is compiled for another scale.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from capjax.data import images
from capjax.data.loader import to_size
from capjax.decode.captioner import Captioner
from capjax.decode.explain import explain
from capjax.decode.guidance import LARGEST_USEFUL_SCALE, warn_if_untrained
from capjax.decode.options import Options
from capjax.errors import UserError
from capjax.report import word_guidance
from capjax.runs import Run

_KEPT = 16  # pictures whose encoding is kept: the examples, and the last ones that were dropped


class Answer(NamedTuple):
    """Two fragments of HTML."""

    captions: str
    numbers: str


@dataclass(frozen=True)
class Search:
    """How captions are searched for: what is not about `kind` does not count."""

    kind: str = "greedy"  # or "sampling" or "beams"
    temperature: float = 1.0
    top_p: float = 1.0
    draw: int = 0  # another number, another caption
    num_beams: int = 4

    def options(self) -> Options:
        if self.kind == "sampling":
            return Options(sample=True, temperature=self.temperature, top_p=self.top_p)
        if self.kind == "beams":
            return Options(num_beams=self.num_beams)
        return Options()

    @property
    def key(self) -> jax.Array | None:
        return jax.random.key(self.draw) if self.kind == "sampling" else None


class Answers:
    """Answers about pictures by the captioner of a run; scales: those that every answer shows.

    UserError for a run that writes no captions about pictures.
    """

    def __init__(self, run: Run, scales: Sequence[float]):
        self.captioner = Captioner(run.model, run.params, run.tokenizer)
        if not hasattr(run.model, "encode_image"):
            raise UserError(
                f"the run {str(run.directory)!r} reads no pictures: give a captioner's run, such "
                "as one of capjax.models.coca"
            )
        self.resize, self.scales = run.config.data.resize, tuple(scales)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            warn_if_untrained(run.config, self.scales)
        texts = [str(one.message) for one in said]
        self.notes = [f"{text[:1].upper()}{text[1:]}." for text in texts]
        self._context = functools.lru_cache(_KEPT)(self._encode)

    def warm_up(self) -> None:
        """Compiles greedy decoding, so that the first visitor need not wait for it."""
        side = self.captioner.model.image_size
        grey = np.full((1, side, side, 3), 127, np.uint8)
        explain(self.captioner, self.captioner.encode(grey).context, self._batch(2.0))

    def __call__(self, picture: str | None, scale: float, search: Search | None = None) -> Answer:
        """About the picture at a path, which must not change. Mistakes are answers, too."""
        if picture is None:
            return Answer(
                word_guidance.problem("Drop a picture, or choose one of the examples."), ""
            )
        search = search or Search()
        try:
            context = self._context(picture)
            with warnings.catch_warnings():
                # The page says so itself.
                warnings.filterwarnings("ignore", message="guidance_scale .* is above")
                explained = explain(
                    self.captioner, context, self._batch(scale), search.options(), rng=search.key
                )
        except UserError as error:
            return Answer(word_guidance.problem(str(error)), "")
        shown = word_guidance.captions(explained, scale, self.scales, self._notes(scale, search))
        return Answer(shown, word_guidance.numbers(explained[1]))

    def _batch(self, scale: float) -> tuple[float, ...]:
        """Always as many, though some may be the same."""
        return (1.0, scale, *self.scales)

    def _encode(self, picture: str) -> Any:
        path = Path(picture)
        try:
            image = images.decode(path.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(f"{path.name} {error}; choose another picture") from error
        image = to_size(image, self.captioner.model.image_size, self.resize)
        return self.captioner.encode(image[None]).context

    def _notes(self, scale: float, search: Search) -> list[str]:
        notes = list(self.notes)
        if scale > LARGEST_USEFUL_SCALE:
            notes.append(f"Above γ = {LARGEST_USEFUL_SCALE:g} captions are likely to degenerate.")
        if search.kind == "sampling":
            notes.append("All scales draw with the same random numbers: they differ by γ alone.")
        return notes
