"""What all cases share: captions, pictures and drawn weights."""

import numpy as np
import peer_cases
import torch
from PIL import Image

CAPTIONS = ["a red circle on the left", "two dogs run over the grass"]


def pictures():
    """Two, larger than any model's, so that they are resized."""
    return [Image.fromarray(x) for x in peer_cases.picture((2, 90, 90, 3))]


def weights(model):
    """The parameters and running statistics of a module, by name."""
    buffers = {n: b for n, b in model.named_buffers() if "running_" in n}
    return {n: x.data for n, x in model.named_parameters()} | buffers


def draw(model):
    """Draws the weights of a module, by their names; returns it."""
    for name, values in weights(model).items():
        values.copy_(torch.tensor(peer_cases.draw(name, tuple(values.shape))))
    return model.eval()


def rounded(model, dtype):
    """The module, computing in float32 with its weights as `dtype` holds them."""
    for values in weights(model.float()).values():
        values.copy_(values.to(dtype))
    return model.eval()


def arrays(**tensors):
    """Of tensors that a model answers."""
    return {name: np.asarray(x.detach().float()) for name, x in tensors.items()}
