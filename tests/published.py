"""Small checkpoints as they are published, made at random into a folder: for tests of importing."""

import json
import pathlib

import numpy as np
import peer_cases

from capjax.weights.files.safetensors_writer import write


def gpt2(folder, *, width=32, layers=2, positions=96, dtype=np.float32, shards=None):
    """A GPT-2 with a tokenizer of its own, its words those of a few captions."""
    import tokenizers

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    captions = ["a red circle on the left", "two dogs run over the grass"] * 5
    tokenizer.train_from_iterator(captions, vocab_size=270, special_tokens=["<|endoftext|>"])
    tokenizer.save_model(str(folder))
    rows = tokenizer.get_vocab_size()
    config = dict(model_type="gpt2", n_head=4, vocab_size=rows, n_positions=positions)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A test\n")
    shapes = {"wte.weight": (rows, width), "wpe.weight": (positions, width)}
    norms = ["ln_f"]
    for i in range(layers):
        norms += [f"h.{i}.ln_1", f"h.{i}.ln_2"]
        for name, inputs, outputs in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            shapes[f"h.{i}.{name}.weight"] = (inputs, outputs)
            shapes[f"h.{i}.{name}.bias"] = (outputs,)
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    _write(folder, shapes, dtype, shards)
    return folder


def vit(folder, *, width=48, layers=2, image_size=32, patch=8):
    """A ViT without a head, by timm's names."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokens = 1 + (image_size // patch) ** 2
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, tokens, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    for norm in ["norm", *(f"blocks.{i}.norm{n}" for i in range(layers) for n in (1, 2))]:
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for i in range(layers):
        for name, inputs, outputs in (
            ("attn.qkv", width, 3 * width),
            ("attn.proj", width, width),
            ("mlp.fc1", width, 4 * width),
            ("mlp.fc2", 4 * width, width),
        ):
            shapes[f"blocks.{i}.{name}.weight"] = (outputs, inputs)
            shapes[f"blocks.{i}.{name}.bias"] = (outputs,)
    config = {
        "architecture": "vit_test_patch8",
        "num_classes": 0,
        "model_args": {"num_heads": 4},
        "pretrained_cfg": {
            "input_size": [3, image_size, image_size],
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    _write(folder, shapes, np.float32, None)
    return folder


def _write(folder, shapes, dtype, shards):
    tensors = [
        (n, s, np.dtype(dtype), lambda n=n, s=s: peer_cases.draw(n, s).astype(dtype))
        for n, s in shapes.items()
    ]
    write(folder / "model.safetensors", tensors, {"format": "pt"}, shards)
