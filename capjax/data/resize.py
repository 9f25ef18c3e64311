"""The resizing rules of published models: a picture of any shape becomes the square a model takes.

A rule resizes with Pillow's antialiased filters, which the published numbers were made with, and
then cuts the central square. Letters: H, W height and width of a picture, S the side of the square,
R = floor(S / share) the length to which both sides, or the shorter one, are resized first.

    squash               both sides to S: SigLIP, BLIP; SigLIP 2 in OpenCLIP
    squash_bilinear      the same, bilinear: ViT and SigLIP 2 in Transformers
    squash_0.875         both sides to S / 0.875, then the middle: DeiT in Transformers
    crop                 the shorter side to S, then the middle: CLIP, in openai/CLIP and OpenCLIP
    crop_floor           the same, as Transformers cuts it: CLIPImageProcessor
    crop_0.95, crop_0.9  the shorter side to S / share, then the middle: ViT, DeiT and others in
    crop_0.875           timm; 0.875 is 256 -> 224
    crop_0.875_bilinear  the same, bilinear: ResNet in torchvision
    crop_0.875_floor     as Transformers cuts it: DINOv2's BitImageProcessor

Two ways of finding the middle are in use, which differ by one pixel where the margin is odd: half
of it rounded to the even number (torchvision, so CLIP's own code and timm), or rounded down
(Transformers). One pixel of shift is visible in reproduced scores.
Raises `UserError` for another rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from capjax.errors import UserError

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
MAX_ASPECT = 16  # beyond it, "crop" takes the middle of a strip before resizing


@dataclass(frozen=True)
class Rule:
    """How a picture becomes a square."""

    keeps_aspect: bool  # the shorter side becomes R, or else both do
    filter: Image.Resampling = BICUBIC
    share: float = 1.0  # S / R
    rounds_margin: bool = True  # half of the margin is rounded half to even, or else down

    def resized(self, size: int) -> int:
        """R for S = `size`."""
        return math.floor(size / self.share)


RULES = {
    "squash": Rule(False),
    "crop": Rule(True),
    "squash_bilinear": Rule(False, BILINEAR),
    "squash_0.875": Rule(False, share=0.875, rounds_margin=False),
    "crop_floor": Rule(True, rounds_margin=False),
    "crop_0.95": Rule(True, share=0.95),
    "crop_0.9": Rule(True, share=0.9),
    "crop_0.875": Rule(True, share=0.875),
    "crop_0.875_bilinear": Rule(True, BILINEAR, share=0.875),
    "crop_0.875_floor": Rule(True, share=0.875, rounds_margin=False),
}
RESIZE_RULES = tuple(RULES)


def resize(image: np.ndarray, size: int, rule: str) -> np.ndarray:
    """uint8 [H,W,3] -> uint8 [S,S,3] with S = `size`, by the rule of the model's publication."""
    how = _named(rule)
    side = how.resized(size)
    if how.keeps_aspect:
        scaled = _shorter_side(image, side, how.filter)
    else:
        scaled = to_shape(image, side, side, how.filter)
    top, left = (_half(length - size, how) for length in scaled.shape[:2])
    return np.ascontiguousarray(scaled[top : top + size, left : left + size])


def leaves_squares(rule: str) -> bool:
    """Whether a picture of the wanted size stays as it is."""
    return _named(rule).share == 1


def _named(rule: str) -> Rule:
    if rule not in RULES:
        raise UserError(f"unknown resize rule {rule!r}; choose one of {', '.join(RESIZE_RULES)}")
    return RULES[rule]


def to_shape(
    image: np.ndarray, height: int, width: int, filter: Image.Resampling = BICUBIC
) -> np.ndarray:
    """uint8 [H,W,3] -> uint8 [height,width,3]."""
    return np.array(Image.fromarray(image).resize((width, height), filter))


def _shorter_side(image: np.ndarray, side: int, filter: Image.Resampling) -> np.ndarray:
    """The picture with its shorter side R = `side`; the longer one is cut to an integer."""
    height, width = image.shape[:2]
    # A strip of 1 x 60,000 would grow to gigabytes only to be cut; its middle gives that square.
    most = MAX_ASPECT * min(height, width)
    top, left = max(0, (height - most) // 2), max(0, (width - most) // 2)
    image = image[top : top + most, left : left + most]
    height, width = image.shape[:2]
    if height <= width:
        return to_shape(image, side, int(side * width / height), filter)
    return to_shape(image, int(side * height / width), side, filter)


def _half(margin: int, how: Rule) -> int:
    return round(margin / 2) if how.rounds_margin else margin // 2
