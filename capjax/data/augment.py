"""RandAugment, and when a picture must not be mirrored.

RandAugment draws `layers` operations from a policy, with repeats, and applies each with
probability 0.5 and a common `magnitude` from 0 to 10 (Cubuk et al. 2020, arXiv 1909.13719; the
paper gives neither ranges nor that probability, both come from the policy's own code). Policies:

    timm_increasing  timm's `rand-m9-n2-inc1`: 15 operations, all stronger with the magnitude
    timm             timm's `rand-m9-n2`: the same, but Posterize and Solarize weaken as the
                     magnitude grows, and colours, contrast, ... go from 0.1 to 1.9, 1 at 5
    blip             10 operations that leave colours alone, since captions name them; shifts of at
                     most 10 px. BLIP trains with magnitude 5, ALBEF with 7, both with 2 layers

At magnitude 10: rotation 30 degrees, shear 0.3, a shift of 0.45 of the side (timm), solarize_add
110 below 128, enhancement factors of 0.1 or 1.9, posterize to 1 bit (timm: 4), solarize from 0
(timm: 256). Uncovered corners are grey (128, 128, 128). Pillow does the work; timm's operations
come out equal to the bit, BLIP's own code warps with OpenCV and differs in the last digits.

H, W: height and width of a picture. Every function takes and gives uint8 [H,W,3].
Raises `UserError` for an unknown policy and a magnitude or number of layers out of range.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from capjax.errors import UserError

PROBABILITY = 0.5  # of each drawn operation to be applied
MAX_MAGNITUDE = 10
FILL = (128, 128, 128)  # where the picture does not reach after a warp

_BILINEAR, _BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC

# "right" is also "now" and "correct"; a few pictures that stay unmirrored cost nothing.
_SIDES = re.compile(
    r"\b(?:left|right)(?:s|most|wards?|ies|y|(?:-|\s)?hand(?:ed|er|s)?)?\b"
    r"|\b(?:anti-?|counter-?)?clockwise\b",
    re.IGNORECASE,
)

# (strength in [0, 1], sign, side of the picture in px) -> the operation's argument
_ARGUMENT: dict[str, Callable[[float, int, int], float]] = {
    "rotate": lambda t, sign, side: sign * 30.0 * t,
    "shear": lambda t, sign, side: sign * 0.3 * t,
    "translate": lambda t, sign, side: sign * 0.45 * t * side,
    "translate_10": lambda t, sign, side: sign * 10.0 * t,
    "enhance": lambda t, sign, side: 1.8 * t + 0.1,
    "enhance_increasing": lambda t, sign, side: max(0.1, 1.0 + sign * 0.9 * t),
    # 0 bits would be a black picture, and Pillow refuses them.
    "posterize": lambda t, sign, side: max(1, int(4 * t)),
    "posterize_increasing": lambda t, sign, side: max(1, 4 - int(4 * t)),
    "solarize": lambda t, sign, side: min(256, int(256 * t)),
    "solarize_increasing": lambda t, sign, side: 256 - min(256, int(256 * t)),
    "solarize_add": lambda t, sign, side: min(128, int(110 * t)),
    "none": lambda t, sign, side: 0,
}


def _warp(picture: Image.Image, matrix: tuple, filter: Image.Resampling) -> Image.Image:
    """Pixel (x, y) comes from (a x + b y + c, d x + e y + f) of `matrix` (a, b, c, d, e, f)."""
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, resample=filter, fillcolor=FILL
    )


def _solarize_add(picture: Image.Image, add: int) -> Image.Image:
    table = np.arange(256)
    table[:128] = np.minimum(table[:128] + add, 255)
    return picture.point(table.tolist() * 3)


# (picture, argument, filter of warps) -> picture
_OPERATIONS: dict[str, Callable[[Image.Image, float, Image.Resampling], Image.Image]] = {
    "identity": lambda p, a, f: p,
    "auto_contrast": lambda p, a, f: ImageOps.autocontrast(p),
    "equalize": lambda p, a, f: ImageOps.equalize(p),
    "invert": lambda p, a, f: ImageOps.invert(p),
    "rotate": lambda p, a, f: p.rotate(a, resample=f, fillcolor=FILL),
    "posterize": lambda p, a, f: ImageOps.posterize(p, int(a)),
    "solarize": lambda p, a, f: ImageOps.solarize(p, int(a)),
    "solarize_add": lambda p, a, f: _solarize_add(p, int(a)),
    "colour": lambda p, a, f: ImageEnhance.Color(p).enhance(a),
    "contrast": lambda p, a, f: ImageEnhance.Contrast(p).enhance(a),
    "brightness": lambda p, a, f: ImageEnhance.Brightness(p).enhance(a),
    "sharpness": lambda p, a, f: ImageEnhance.Sharpness(p).enhance(a),
    "shear_x": lambda p, a, f: _warp(p, (1, a, 0, 0, 1, 0), f),
    "shear_y": lambda p, a, f: _warp(p, (1, 0, 0, a, 1, 0), f),
    "translate_x": lambda p, a, f: _warp(p, (1, 0, a, 0, 1, 0), f),
    "translate_y": lambda p, a, f: _warp(p, (1, 0, 0, 0, 1, a), f),
}

_TIMM_INCREASING = {
    "auto_contrast": "none",
    "equalize": "none",
    "invert": "none",
    "rotate": "rotate",
    "posterize": "posterize_increasing",
    "solarize": "solarize_increasing",
    "solarize_add": "solarize_add",
    "colour": "enhance_increasing",
    "contrast": "enhance_increasing",
    "brightness": "enhance_increasing",
    "sharpness": "enhance_increasing",
    "shear_x": "shear",
    "shear_y": "shear",
    "translate_x": "translate",
    "translate_y": "translate",
}
# policy -> (its operations and what the magnitude means to each, the filters a warp draws from)
POLICIES: dict[str, tuple[dict[str, str], tuple[Image.Resampling, ...]]] = {
    "timm_increasing": (_TIMM_INCREASING, (_BILINEAR, _BICUBIC)),
    "timm": (
        {name: rule.removesuffix("_increasing") for name, rule in _TIMM_INCREASING.items()},
        (_BILINEAR, _BICUBIC),
    ),
    "blip": (
        {
            "identity": "none",
            "auto_contrast": "none",
            "brightness": "enhance",
            "sharpness": "enhance",
            "equalize": "none",
            "shear_x": "shear",
            "shear_y": "shear",
            "translate_x": "translate_10",
            "translate_y": "translate_10",
            "rotate": "rotate",
        },
        (_BILINEAR,),
    ),
}


def rand_augment(
    image: np.ndarray,
    rng: np.random.Generator,
    layers: int = 2,
    magnitude: float = 9,
    policy: str = "timm_increasing",
) -> np.ndarray:
    """uint8 [H,W,3] -> uint8 [H,W,3]: `layers` random operations of the policy in a row.

    What is drawn depends on the generator alone, never on the picture.
    """
    check(layers, magnitude, policy)
    operations, filters = POLICIES[policy]
    names = list(operations)
    for number in rng.integers(len(names), size=layers):
        # All four are drawn for every layer, so that a layer's draws do not depend on its kind.
        applied = rng.random() < PROBABILITY
        sign = -1 if rng.random() < 0.5 else 1
        filter = filters[int(rng.integers(len(filters)))]
        if applied:
            image = apply(image, names[number], magnitude, sign, policy, filter)
    return image


def apply(
    image: np.ndarray,
    operation: str,
    magnitude: float,
    sign: int = 1,
    policy: str = "timm_increasing",
    filter: Image.Resampling = _BICUBIC,
) -> np.ndarray:
    """uint8 [H,W,3] -> uint8 [H,W,3]: one operation of a policy, without chance.

    sign: 1 or -1, of what can go both ways: rotations, shears, shifts, and increasing enhancement.
    """
    rule = POLICIES[policy][0][operation]
    height, width = image.shape[:2]
    side = height if operation == "translate_y" else width
    argument = _ARGUMENT[rule](magnitude / MAX_MAGNITUDE, sign, side)
    return np.array(_OPERATIONS[operation](Image.fromarray(image), argument, filter))


def check(layers: int, magnitude: float, policy: str) -> None:
    """UserError where these are no RandAugment: for constructors, so that configs fail at once."""
    if policy not in POLICIES:
        raise UserError(
            f"unknown RandAugment policy {policy!r}; choose one of {', '.join(POLICIES)}"
        )
    if layers < 0:
        raise UserError(f"RandAugment cannot apply {layers} layers; use 0 or more")
    if not 0 <= magnitude <= MAX_MAGNITUDE:
        raise UserError(
            f"magnitude={magnitude} of RandAugment is not between 0 and {MAX_MAGNITUDE}"
        )


def mentions_sides(caption: str) -> bool:
    """Whether an English caption names left, right or a direction of turning.

    Such a caption would be wrong of the mirrored picture. Every "right" counts, also that of "right
    now"; words in another language, and text that is legible in the picture, are not noticed.
    """
    return _SIDES.search(caption) is not None
