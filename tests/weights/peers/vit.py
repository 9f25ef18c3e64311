"""Vision Transformers of timm and of the transformers library."""

import json
import pathlib
import tempfile

import numpy as np
import timm
import torch
import transformers
from peer_cases import draw, picture
from safetensors.numpy import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTModel

MADE_WITH = (
    f"torch {torch.__version__}, timm {timm.__version__}, transformers {transformers.__version__}"
)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)


def cases():
    """Each with a head and without, with pixels, crops and activations that differ."""
    return [
        # As DeiT's own file: no config.json, so that heads are 64 wide.
        of_timm([2, 24, 24, 3], {}, IMAGENET, img_size=24, patch_size=8, embed_dim=64, depth=2,
                num_heads=1, num_classes=5),
        of_timm(
            [3, 32, 32, 3],
            {"architecture": "vit_tiny_patch16_224", "model_args": {"num_heads": 3},
             "pretrained_cfg": {"mean": HALF[0], "std": HALF[1], "crop_pct": 0.9,
                                "crop_mode": "center", "interpolation": "bicubic"}},
            HALF, img_size=32, patch_size=16, embed_dim=48, depth=3, num_heads=3, mlp_ratio=1.5,
            num_classes=0,
        ),
        of_transformers(
            ViTForImageClassification, [2, 32, 32, 3], HALF, {}, hidden_size=32,
            num_hidden_layers=2, num_attention_heads=4, intermediate_size=80, image_size=32,
            patch_size=8, num_labels=3,
        ),
        of_transformers(
            ViTModel, [3, 24, 24, 3], IMAGENET,
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 24},
             "resample": 3, "image_mean": IMAGENET[0], "image_std": IMAGENET[1]},
            hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=64,
            image_size=24, patch_size=12, hidden_act="gelu_new", layer_norm_eps=1e-3,
        ),
    ]  # fmt: skip


def of_timm(image, config, statistics, **fields):
    """States of all tokens, logits if there are classes, and a gradient."""
    model = timm.create_model("vit_tiny_patch16_224", **fields).eval()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    model.load_state_dict(drawn)
    states = model.forward_features(pixels(image, statistics))
    logits = model.forward_head(states) if fields["num_classes"] else None
    found = outputs(model.cls_token, states, logits)
    return {"config": config, "preprocessor": {}, "tensors": shapes, "image": image,
            "watched": "cls_token", "outputs": found}  # fmt: skip


def of_transformers(kind, image, statistics, preprocessor, **fields):
    """The same; weights go by a file, whose names are not the module's."""
    model = kind(ViTConfig(**fields))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = pathlib.Path(folder) / "model.safetensors"
        shapes = {name: list(value.shape) for name, value in load_file(file).items()}
        drawn = {name: draw(name, tuple(shape)) for name, shape in shapes.items()}
        save_file(drawn, file, {"format": "pt"})
        model = kind.from_pretrained(folder).eval()
        config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    x = pixels(image, statistics)
    backbone = model if kind is ViTModel else model.vit
    states = backbone(x).last_hidden_state
    logits = None if kind is ViTModel else model(x).logits
    watched = backbone.embeddings.cls_token
    name = ("" if kind is ViTModel else "vit.") + "embeddings.cls_token"
    return {"config": config, "preprocessor": preprocessor, "tensors": shapes, "image": image,
            "watched": name, "outputs": outputs(watched, states, logits)}  # fmt: skip


def pixels(shape, statistics):
    """Drawn pictures, normalised: [B,3,S,S]."""
    mean, deviation = map(np.array, statistics)
    x = (picture(shape) / 255.0 - mean) / deviation
    return torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)


def outputs(watched, states, logits):
    """`score`, whose gradient is taken, is the mean of |states| to the third power."""
    score = (states.abs() ** 3).mean()
    (gradient,) = torch.autograd.grad(score, watched)
    return {
        "states": rounded(states),
        "logits": None if logits is None else rounded(logits),
        "score": score.item(),
        "gradient": rounded(gradient),
    }


def rounded(x):
    """Seven digits of each number."""
    return [float(f"{value:.7g}") for value in x.detach().flatten().tolist()]
