"""What `open_clip_config.json` says, the file that OpenCLIP puts beside its tensors.

    {"model_cfg": {"embed_dim": 512, "quick_gelu": true, "vision_cfg": {..}, "text_cfg": {..}},
     "preprocess_cfg": {"mean": [..], "std": [..], "interpolation": "bicubic", ..}}

Fields that it leaves out have OpenCLIP's defaults. Raises `UserError` for a field with a value that
capjax's models cannot express.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from capjax.errors import UserError
from capjax.models.clip import VOCABULARY
from capjax.models.pixels import CLIP
from capjax.weights.plan import Source, read_json
from capjax.weights.sizes import only

FILE = "open_clip_config.json"
TENSORS = "open_clip_model.safetensors"  # as OpenCLIP calls what lies beside that file
HEAD_WIDTH = 64  # of both towers, unless said

_PLAIN_BLOCKS = {
    "ls_init_value": None,
    "norm_kwargs": None,
    "act_kwargs": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
_VISION = _PLAIN_BLOCKS | {"timm_model_name": None, "no_ln_pre": False, "pool_type": "tok"}
_TEXT = _PLAIN_BLOCKS | {
    "hf_model_name": None,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_type": "linear",
    "proj_bias": False,
    "pad_id": 0,
    "tokenizer_kwargs": None,
}
_RULES = {
    ("shortest", "bicubic"): "crop",
    ("squash", "bicubic"): "squash",
    ("squash", "bilinear"): "squash_bilinear",
}


class Config(NamedTuple):
    """The file's sections, {} where there is none."""

    model: Mapping[str, Any]
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    preprocess: Mapping[str, Any]

    @property
    def activation(self) -> str:
        """Of all blocks. The field that decides it is left out where it is GELU."""
        return "quick_gelu" if self.model.get("quick_gelu") else "gelu"

    def image_heads(self, width: int) -> int:
        """Of the image tower, whose last states are `width` wide."""
        return width // self.vision.get("head_width", HEAD_WIDTH)

    def text_heads(self, width: int) -> int:
        """Of the text tower."""
        return self.text.get("heads", 8) if self.model else width // HEAD_WIDTH

    def image(self, image_size: int) -> dict[str, Any]:
        """`Plan.image`: OpenCLIP squeezes or cuts as the config says, CLIP's way if it does not."""
        p = self.preprocess
        for field, expected in (("mean", CLIP.mean), ("std", CLIP.deviation)):
            given = np.asarray(p.get(field, expected), float)
            if given.shape != (3,) or not np.allclose(given, expected, rtol=0, atol=1e-6):
                raise UserError(
                    f"{FILE} says {field}={p[field]!r}, and CLIP's towers here normalise pictures "
                    "with CLIP's own: choose another checkpoint"
                )
        how = (p.get("resize_mode", "shortest"), p.get("interpolation", "bicubic"))
        if how not in _RULES:
            raise UserError(
                f"{FILE} says resize_mode={how[0]!r} with interpolation={how[1]!r}, for which "
                "there is no resizing rule: choose another checkpoint"
            )
        return dict(image_size=image_size, resize=_RULES[how])


def read(source: Source) -> Config:
    """The config beside the tensors, checked for what no model of ours computes."""
    found = read_json(source.folder / FILE)
    model = found.get("model_cfg", {})
    config = Config(
        model,
        model.get("vision_cfg", {}),
        model.get("text_cfg", {}),
        found.get("preprocess_cfg", {}),
    )
    only(f"{FILE}, vision_cfg,", config.vision, _VISION)
    only(f"{FILE}, text_cfg,", config.text, _TEXT)
    tokenizer = config.text.get("hf_tokenizer_name")
    if tokenizer and config.text.get("vocab_size", VOCABULARY) != VOCABULARY:
        raise UserError(
            f"{FILE}, text_cfg, says hf_tokenizer_name={tokenizer!r}, which is not CLIP's "
            "tokenizer: choose another checkpoint"
        )
    return config


def tokenizer(source: Source, max_length: int) -> dict[str, Any]:
    """`Plan.tokenizer`: CLIP's, from any of the files that it is published as."""
    path = source.file("merges.txt", "bpe_simple_vocab_16e6.txt.gz", "tokenizer.json")
    return dict(name="capjax.data.clip_bpe", path=str(path), max_length=max_length)
