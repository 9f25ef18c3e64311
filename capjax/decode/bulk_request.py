"""What a captioning job is to write about each picture, and CLIPScore to choose captions by.

Letters: B pictures, K captions of a picture, S side in pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from capjax.decode.bulk_pictures import Size
from capjax.decode.captioner import Caption
from capjax.decode.options import Options
from capjax.metrics.clipscore import WEIGHT, image_caption_cosine


class ClipScorer:
    """CLIPScore of captions by a dual encoder (a `capjax.evals.encoder.Encoder`)."""

    name = "clipscore"

    def __init__(self, encoder: Any, resize: str):
        self.encoder, self.size = encoder, Size(encoder.model.image_size, resize)

    def __call__(self, images: np.ndarray, captions: Sequence[Sequence[Caption]]) -> np.ndarray:
        """uint8 [B,S,S,3] and captions [B][K] -> float64 [B,K].

        Not yet cut at 0, for of captions that all point away from the picture one is the nearest.
        """
        pictures = self.encoder.images(images[: len(captions)])
        texts = self.encoder.texts([one.text for group in captions for one in group])
        each = len(captions[0])
        cosines = image_caption_cosine(np.repeat(pictures, each, 0), texts)
        return WEIGHT * cosines.reshape(-1, each)

    def shown(self, value: float) -> float:
        """The CLIPScore that a row tells."""
        return max(value, 0.0)


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be written about each picture.

    scorer: the best of each picture's samples by it gets a row; likeliest: that whose log p(caption
    | picture) is highest; with neither, every sample gets one. must_contain: phrases that beams
    must write, each of one or more alternatives.
    """

    scales: tuple[float, ...] = (1.0,)
    options: Options = dataclasses.field(default_factory=Options)
    prompt: str = ""
    seed: int = 0
    likeliest: bool = False
    scorer: ClipScorer | None = None
    must_contain: tuple[tuple[str, ...], ...] = ()

    @property
    def columns(self) -> dict[str, type]:
        """What a row holds."""
        columns = {"image": str, "guidance_scale": float, "caption": str, "log_prob": float}
        columns |= {"score": float, "truncated": bool}
        if self.scorer:
            return columns | {self.scorer.name: float}
        return columns | ({"sample": int} if self.all_samples else {})

    @property
    def all_samples(self) -> bool:
        """Whether a picture has several rows a scale."""
        return self.options.samples > 1 and not (self.scorer or self.likeliest)
