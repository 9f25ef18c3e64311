"""What a published checkpoint's `preprocessor_config.json` says, in capjax's words, and back.

    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, ...}
        -> {"resize": "crop_floor", "image_size": 224, "pixels": "CLIP"}

`resize` is a rule of `capjax.data.resize`, `image_size` the side S of the model's square and
`pixels` the name of the mean and deviation in `capjax.models.pixels`. Fields that the file leaves
out have the defaults of its class in Transformers 5.23, for files of older versions, too
("feature_extractor_type": "ViTFeatureExtractor"; "size": 224).

The rule is the one by which Transformers cuts: CLIP's is "crop_floor" here, and "crop" in CLIP's
own code. Pixels equal those of Transformers' PIL backend, which has Pillow resize, as capjax does;
its torchvision backend resizes by itself, and some values differ by one or two levels of 255.
Raises `UserError`, naming the field, for what no rule does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from capjax.data.resize import BICUBIC, BILINEAR, RULES
from capjax.errors import UserError
from capjax.models import pixels
from capjax.weights.plan import read_json

FILES = ("preprocessor_config.json", "processor_config.json")
_PART = "image_processor"  # of the second, which newer versions write in place of the first

_BY_NAME = {"HALF": pixels.HALF, "CLIP": pixels.CLIP, "IMAGENET": pixels.IMAGENET}
_FILTERS = {int(BICUBIC): BICUBIC, int(BILINEAR): BILINEAR}


def _defaults(size: Any, resample: int, name: str, crop: int = 0, square: bool = True) -> dict:
    """`square`: a "size" that is one number means both sides, or else the shorter one."""
    mean, deviation = _BY_NAME[name]
    return {
        "size": size,
        "resample": resample,
        "do_center_crop": bool(crop),
        "crop_size": crop,
        "image_mean": mean,
        "image_std": deviation,
        "square": square,
    }


_CLASSES = {
    "CLIPImageProcessor": _defaults(224, 3, "CLIP", crop=224, square=False),
    "SiglipImageProcessor": _defaults({"height": 224, "width": 224}, 3, "HALF", square=False),
    "BlipImageProcessor": _defaults(384, 3, "CLIP"),
    "ViTImageProcessor": _defaults(224, 2, "HALF"),
    "DeiTImageProcessor": _defaults(256, 3, "HALF", crop=224),
    "BitImageProcessor": _defaults(224, 3, "CLIP", crop=224, square=False),
}


def read(folder: Path) -> dict[str, Any]:
    """The contents of the file in a folder that says how pictures are prepared, {} without one."""
    first, second = (read_json(folder / name) for name in FILES)
    return first or second.get(_PART, {})


def with_size(config: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """The contents for pictures of another size, resized by the same rule; unchanged without one.

    What is written is what Transformers means by either way of resizing, whatever the class.
    """
    if _PART in config:
        return {**config, _PART: with_size(config[_PART], image_size)}
    if not {"image_processor_type", "feature_extractor_type"} & config.keys():
        return dict(config)
    rule = RULES[from_config(config)["resize"]]
    side = rule.resized(image_size)
    square = {"height": image_size, "width": image_size}
    size = {"shortest_edge": side} if rule.keeps_aspect else {"height": side, "width": side}
    cut = config.get("do_center_crop", _CLASSES[_class(config)]["do_center_crop"])
    return {**config, "size": size} | ({"crop_size": square} if cut else {})


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """{"resize": rule, "image_size": S, "pixels": name} of the file's contents.

    A `processor_config.json` does, too: there the same lies under "image_processor".
    """
    config = config.get(_PART, config)
    defaults = _CLASSES[_class(config)]
    fields = {**defaults, **{k: v for k, v in config.items() if v is not None}}
    for field in ("do_resize", "do_rescale", "do_normalize"):
        if not fields.get(field, True):
            raise _unsupported(field, False, "pictures are always resized and normalised")
    if fields.get("do_pad"):
        raise _unsupported("do_pad", True, "no rule pads pictures")
    if not np.isclose(fields.get("rescale_factor", 1 / 255), 1 / 255, rtol=1e-6):
        raise _unsupported("rescale_factor", fields["rescale_factor"], "it must be 1 / 255")
    rule, size = _rule(fields)
    return {"resize": rule, "image_size": size, "pixels": _pixels(fields)}


def _class(config: Mapping[str, Any]) -> str:
    field = "image_processor_type"
    if field not in config and "feature_extractor_type" in config:
        field = "feature_extractor_type"
    given = str(config.get(field, ""))
    name = given.removesuffix("Fast").removesuffix("Pil")
    name = name.replace("FeatureExtractor", "ImageProcessor")
    if name not in _CLASSES:
        raise _unsupported(field, given, f"it must be one of {', '.join(_CLASSES)}")
    return name


def _rule(fields: Mapping[str, Any]) -> tuple[str, int]:
    """The rule's name and S."""
    filter = _FILTERS.get(fields["resample"])
    if filter is None:
        raise _unsupported("resample", fields["resample"], "it must be 2 (bilinear) or 3 (bicubic)")
    keeps_aspect, side = _size(fields["size"], fields["square"])
    if not fields["do_center_crop"] and keeps_aspect:
        raise _unsupported("do_center_crop", False, "with a shortest_edge, no square is left")
    size = _square("crop_size", fields["crop_size"]) if fields["do_center_crop"] else side
    for name, rule in RULES.items():
        # Without a margin it does not matter how its half is rounded.
        cut_alike = not rule.rounds_margin or (not keeps_aspect and side == size)
        alike = rule.keeps_aspect == keeps_aspect and rule.filter == filter and cut_alike
        if alike and rule.resized(size) == side:
            return name, size
    raise _unsupported(
        "size", fields["size"], f"no rule of capjax.data.resize goes from there to {size} pixels"
    )


def _size(size: Any, square: bool) -> tuple[bool, int]:
    """(the shorter side is meant, its length)."""
    if isinstance(size, Mapping):
        if set(size) == {"shortest_edge"}:
            return True, _square("size", size["shortest_edge"])
        return False, _square("size", size)
    return not square, _square("size", size)


def _square(field: str, value: Any) -> int:
    """The side of the square that is given as {"height": S, "width": S}, [S, S] or S."""
    sides = value
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        sides = [value["height"], value["width"]]
    sides = sides if isinstance(sides, list | tuple) else [sides]
    if not all(isinstance(s, int) and s > 0 for s in sides) or len(set(sides)) != 1:
        raise _unsupported(field, value, "capjax's models take squares")
    return sides[0]


def _pixels(fields: Mapping[str, Any]) -> str:
    mean, deviation = fields["image_mean"], fields["image_std"]
    for name, known in _BY_NAME.items():
        if _near(mean, known.mean) and _near(deviation, known.deviation):
            return name
    raise _unsupported(
        "image_mean", mean, f"with image_std={deviation} it is none of {', '.join(_BY_NAME)}"
    )


def _near(given: Any, known: tuple[float, ...]) -> bool:
    given = np.asarray(given, float)
    return given.shape == (3,) and np.allclose(given, known, rtol=0, atol=1e-6)


def _unsupported(field: str, value: Any, why: str) -> UserError:
    return UserError(
        f"the field {field!r} of the preprocessor's config is {value!r}, which is not supported: "
        f"{why}"
    )
