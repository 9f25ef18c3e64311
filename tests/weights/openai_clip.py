"""A small CLIP as openai/CLIP publishes it, with merges made up: for tests of whole folders."""

import gzip
import itertools

import numpy as np
import peer_cases

from capjax.data.clip_bpe import NUM_MERGES
from capjax.weights.files.safetensors_writer import write

WIDTH, CONTEXT, PATCH = 64, 8, 8  # heads are 64 wide in all of these files
MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"


def merges():
    """As many as CLIP's: two signs become one symbol, within a word and at its end."""
    signs = [*map(chr, [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)])]
    pairs = itertools.product(signs, [*signs, *(f"{sign}</w>" for sign in signs)])
    return list(itertools.islice(pairs, NUM_MERGES))


def checkpoint(folder, image_size=16):
    """model.safetensors in half precision and the file of merges, without any config."""
    folder.mkdir()
    shapes = {
        "token_embedding.weight": (512 + NUM_MERGES + 2, WIDTH),
        "positional_embedding": (CONTEXT, WIDTH),
        "text_projection": (WIDTH, 16),
        "visual.proj": (WIDTH, 16),
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (1 + (image_size // PATCH) ** 2, WIDTH),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "logit_scale": (),
    }
    for tower in ("transformer.resblocks.0", "visual.transformer.resblocks.0"):
        shapes |= {f"{tower}.attn.in_proj_weight": (3 * WIDTH, WIDTH)}
        shapes |= {f"{tower}.attn.in_proj_bias": (3 * WIDTH,)}
        for name, outputs, inputs in (
            ("attn.out_proj", WIDTH, WIDTH),
            ("mlp.c_fc", 4 * WIDTH, WIDTH),
            ("mlp.c_proj", WIDTH, 4 * WIDTH),
        ):
            shapes |= {
                f"{tower}.{name}.weight": (outputs, inputs),
                f"{tower}.{name}.bias": (outputs,),
            }
        for norm in (f"{tower}.ln_1", f"{tower}.ln_2"):
            shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for norm in ("ln_final", "visual.ln_pre", "visual.ln_post"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    tensors = {n: np.float16(peer_cases.draw(n, shape)) for n, shape in shapes.items()}
    sizes = dict(input_resolution=image_size, context_length=CONTEXT, vocab_size=49_408)
    tensors |= {name: np.array(size) for name, size in sizes.items()}
    promises = [(n, x.shape, x.dtype, lambda x=x: x) for n, x in tensors.items()]
    write(folder / "model.safetensors", promises, {"format": "pt"})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges())]
    (folder / MERGES_FILE).write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder
