"""What the public implementations were asked, and what they answered: for tests of parity.

Weights and pictures are drawn by a rule on both sides, from the tensor's name and the shape, so
that only the answers are kept (`models/peer_outputs/*.json` and `weights/peer_outputs/*.json`,
written by the `make_peer_outputs.py` beside them).
"""

import json
import math
import pathlib
import zlib

import numpy as np

TESTS = pathlib.Path(__file__).parent


def draw(name, shape):
    """A tensor by its name, such that pictures and texts stay apart through all layers."""
    # The stream of RandomState is frozen for all versions of NumPy.
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name == "temperature":
        return np.full(shape, 0.25, np.float32)
    if name.endswith("running_var"):
        values = 0.5 + 0.25 * np.abs(values)
    elif len(shape) < 2:
        values = 0.2 * values + (name.endswith("weight") and len(shape) == 1)
    elif "embedding" in name and len(shape) == 2:
        values = 0.05 * values  # so small that the epsilon of a LayerNorm counts
    else:
        # BatchNorm with drawn statistics does not make up for what activations take away.
        gain = 1.5 if len(shape) == 4 else 1.0
        values = gain * values / math.sqrt(math.prod(shape[1:]))
    return np.asarray(values, np.float32)


def picture(shape):
    """uint8 pictures [B,S,S,3]: coarse noise, which convolutions do not average away."""
    batch, side, _, _ = shape
    coarse = np.random.RandomState(batch + 1000 * side).randint(0, 256, (batch, 7, 7, 3))
    places = np.arange(side) * 7 // side
    return coarse[:, places][:, :, places].astype(np.uint8)


def load(name, room="models"):
    """The cases of a family, a list of dicts."""
    return json.loads((TESTS / room / "peer_outputs" / f"{name}.json").read_text())["cases"]


def tensors(case):
    """The state dict that the case was computed with."""
    return {name: draw(name, tuple(shape)) for name, shape in case["tensors"].items()}
