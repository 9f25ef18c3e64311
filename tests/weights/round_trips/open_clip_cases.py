"""CLIP and CoCa of open_clip, and SigLIP's arrays of big_vision."""

import json
import shutil

import numpy as np
import open_clip
import peer_cases
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, build_model_from_openai_state_dict
from open_clip.tokenizer import default_bpe
from peers.siglip import arrays as big_vision_arrays
from round_trips import tokenizer_files
from round_trips.inputs import CAPTIONS, arrays, draw, pictures, rounded
from safetensors.torch import load_file, save_file

CONTEXT = 16
TEXT = dict(context_length=CONTEXT, vocab_size=49_408, width=32, heads=4, layers=2)


def published(kind, file, **config):
    """`make`: a module of open_clip, in a file of this name beside its config."""

    def make(folder):
        shutil.copy(default_bpe(), folder / "bpe_simple_vocab_16e6.txt.gz")
        tensors = draw(kind(**config)).state_dict()
        if file.endswith(".safetensors"):
            save_file(tensors, folder / file, {"format": "pt"})
        else:
            torch.save(tensors, folder / file)
        preprocess = dict(
            mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD,
            interpolation="bicubic", resize_mode="shortest",
        )  # fmt: skip
        # CoCa is told from CLIP by this field.
        model = config | (dict(custom_text=True) if kind is CoCa else {})
        text = json.dumps(dict(model_cfg=model, preprocess_cfg=preprocess))
        (folder / "open_clip_config.json").write_text(text)

    return make


def inputs(preprocess):
    """Pictures [2,3,S,S] and captions [2,L]."""
    ids = open_clip.SimpleTokenizer(context_length=CONTEXT)(CAPTIONS)
    return torch.stack([preprocess(x) for x in pictures()]), ids


def clip_answer(folder, dtype):
    """Embeddings and the scale of their product."""
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return both(rounded(model, dtype), *inputs(preprocess))


def both(model, x, ids):
    """Of one CLIP."""
    return arrays(
        image=model.encode_image(x), text=model.encode_text(ids), scale=model.logit_scale.exp()
    )


def coca_answer(folder, dtype):
    """Embeddings, and logits of the captions."""
    kind = f"local-dir:{folder}"
    model, preprocess = open_clip.create_model_from_pretrained(kind)
    out = rounded(model, dtype)(*inputs(preprocess))
    return arrays(image=out["image_features"], text=out["text_features"], logits=out["logits"])


def openai(folder):
    """The state dict of OpenAI's first releases, in half precision and with sizes as tensors."""
    shutil.copy(default_bpe(), folder / "bpe_simple_vocab_16e6.txt.gz")
    model = CLIP(
        embed_dim=24,
        text_cfg=dict(context_length=CONTEXT, vocab_size=49_408, width=64, heads=1, layers=1),
        vision_cfg=dict(layers=2, width=64, head_width=64, patch_size=8, image_size=32),
    )
    tensors = {n: x for n, x in draw(model).half().state_dict().items() if n != "attn_mask"}
    sizes = dict(input_resolution=32, context_length=CONTEXT, vocab_size=49_408)
    tensors |= {name: torch.tensor(size) for name, size in sizes.items()}
    torch.save(tensors, folder / "ViT-small.pt")


def openai_answer(folder, dtype):
    """As `clip_answer`, where there is a config; the first file is rebuilt from tensors alone."""
    if (folder / "open_clip_config.json").exists():
        return clip_answer(folder, dtype)
    tensors = open_clip.factory.load_state_dict(str(folder / "ViT-small.pt"))
    model = build_model_from_openai_state_dict(tensors, cast_dtype=torch.float32)
    preprocess = open_clip.image_transform(model.visual.image_size, is_train=False)
    return both(rounded(model, dtype), *inputs(preprocess))


def big_vision(folder):
    """SigLIP of big_vision: layers stacked, an .npz file."""
    options = dict(pad_id=-1, eos_id=1, unk_id=2, bos_id=-1)
    count = tokenizer_files.sentence_pieces(folder, "sentencepiece.model", vocab_size=45, **options)
    shapes = big_vision_arrays(
        [2, 32, 32, 3], [[0] * CONTEXT], "params/", True, layers=2, width=48, heads=4,
        vocab_size=count, patch_size=8, mlp_dim=96,
    )  # fmt: skip
    drawn = {name: peer_cases.draw(name, tuple(shape)) for name, shape in shapes.items()}
    np.savez(folder / "siglip.npz", **drawn)


def big_vision_answer(folder, dtype):
    """Its arrays themselves: no library of PyTorch has these names."""
    if (folder / "siglip.npz").exists():
        found = {n: torch.tensor(x) for n, x in np.load(folder / "siglip.npz").items()}
    else:
        found = load_file(folder / "model.safetensors")
    return arrays(**{name: x.to(dtype) for name, x in found.items()})


CASES = {
    "clip_vit": (
        published(
            CLIP, "open_clip_model.safetensors", embed_dim=24, text_cfg=TEXT,
            vision_cfg=dict(layers=2, width=48, head_width=16, patch_size=8, image_size=32),
        ),
        clip_answer,
    ),
    "clip_resnet": (
        published(
            CLIP, "open_clip_pytorch_model.bin", embed_dim=16, text_cfg=TEXT, quick_gelu=True,
            vision_cfg=dict(layers=[1, 1, 2, 1], width=4, head_width=64, image_size=64),
        ),
        clip_answer,
    ),
    "clip_openai": (openai, openai_answer),
    "coca": (
        published(
            CoCa, "open_clip_pytorch_model.bin", embed_dim=32,
            vision_cfg=dict(
                image_size=32, patch_size=8, layers=2, width=48, head_width=16,
                attentional_pool=True, attn_pooler_queries=5, attn_pooler_heads=4,
                output_tokens=True,
            ),
            text_cfg=TEXT | dict(embed_cls=True, output_tokens=True),
            multimodal_cfg=dict(context_length=CONTEXT, width=32, heads=2, layers=2),
        ),
        coca_answer,
    ),
    "siglip_big_vision": (big_vision, big_vision_answer),
}  # fmt: skip
