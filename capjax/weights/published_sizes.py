"""Sizes in a checkpoint's JSON files, where those of the run have become others.

    S       config.json         image_size (ViT), vision_config.image_size (CLIP, SigLIP, BLIP);
                                model_args.img_size and pretrained_cfg.input_size (timm)
            open_clip_config    vision_cfg.image_size, preprocess_cfg.size
            preprocessor_config, processor_config    size and crop_size
    rows    config.json         vocab_size, or text_config.vocab_size

S is the side of the model's pictures, `rows` how many tokens its embedding has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capjax.weights import open_clip, preprocess
from capjax.weights.plan import CONFIG, read_json


def set_image_size(folder: Path, size: int) -> None:
    """S in all files of the folder that name it, or leave it to a default of their library."""
    _change(folder / CONFIG, lambda config: _image_size(config, size))
    _change(folder / open_clip.FILE, lambda config: _open_clip(config, size))
    for name in preprocess.FILES:
        _change(folder / name, lambda config: preprocess.with_size(config, size))


def set_rows(folder: Path, rows: int) -> None:
    """The vocabulary's size in config.json."""
    _change(folder / CONFIG, lambda config: _rows(config, rows))


def _change(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    before, after = read_json(path), change(read_json(path)) if path.is_file() else {}
    if after != before:
        path.write_text(json.dumps(after, indent=2))


def _image_size(config: dict[str, Any], size: int) -> dict[str, Any]:
    if "architecture" in config:  # timm's
        config["model_args"] = (config.get("model_args") or {}) | {"img_size": size}
        pixels = config.get("pretrained_cfg", config)
        pixels["input_size"] = [3, size, size]
        return config
    towers = [config.get(name) for name in ("vision_config", "vision_config_dict")]
    for place in [tower for tower in towers if tower is not None] or [config]:
        place["image_size"] = size
    return config


def _open_clip(config: dict[str, Any], size: int) -> dict[str, Any]:
    config.setdefault("model_cfg", {}).setdefault("vision_cfg", {})["image_size"] = size
    if "size" in config.get("preprocess_cfg", {}):
        config["preprocess_cfg"]["size"] = size
    return config


def _rows(config: dict[str, Any], rows: int) -> dict[str, Any]:
    towers = [config.get(name) for name in ("text_config", "text_config_dict")]
    for place in [tower for tower in towers if tower is not None] or [config]:
        place["vocab_size"] = rows
    return config
