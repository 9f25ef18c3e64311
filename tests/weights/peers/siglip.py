"""SigLIP of transformers, and of open_clip from the arrays of big_vision."""

import pathlib
import tempfile

import numpy as np
import open_clip
import timm
import torch
import transformers
from open_clip.convert import load_big_vision_weights
from open_clip.transformer import TextTransformer
from peer_cases import draw, picture
from transformers import SiglipConfig, SiglipModel

MADE_WITH = (
    f"torch {torch.__version__}, transformers {transformers.__version__}, open_clip_torch "
    f"{open_clip.__version__}, timm {timm.__version__}"
)


def cases():
    """Both forms; of big_vision's, layers apart and stacked, with and without params/."""
    texts = [[5, 8, 3, 1, 1], [4, 1, 1, 1, 1], [9, 9, 2, 7, 6]]
    return [
        library([3, 32, 32, 3], texts, dict(hidden_act="gelu_pytorch_tanh"), vocab_size=20,
                patch_size=8, layers=2, width=48, heads=4, mlp_dim=96),
        library([1, 42, 42, 3], [[5, 3, 1, 1, 1, 1, 1]], dict(hidden_act="gelu"), vocab_size=13,
                patch_size=14, layers=1, width=36, heads=3, mlp_dim=72),
        big_vision([3, 32, 32, 3], texts, "params/", False, vocab_size=20, patch_size=8,
                   layers=2, width=48, heads=4, mlp_dim=96),
        big_vision([1, 42, 42, 3], [[5, 3, 1, 1, 1, 1, 1]], "", True, vocab_size=13,
                   patch_size=14, layers=3, width=36, heads=3, mlp_dim=72),
    ]  # fmt: skip


def library(image, tokens, more, *, vocab_size, patch_size, layers, width, heads, mlp_dim):
    """One small SigLIP of transformers."""
    shared = more | dict(
        hidden_size=width,
        intermediate_size=mlp_dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    ends = dict(bos_token_id=1, eos_token_id=1, pad_token_id=1)
    config = dict(
        text_config=shared
        | ends
        | dict(vocab_size=vocab_size, max_position_embeddings=len(tokens[0])),
        vision_config=shared | dict(image_size=image[1], patch_size=patch_size),
    )
    model = SiglipModel(SiglipConfig(**config)).eval()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    model.load_state_dict(drawn)
    out = model(input_ids=torch.tensor(tokens), pixel_values=pixels(image))
    out.logits_per_image.diagonal().sum().backward()
    gradient = model.text_model.final_layer_norm.weight.grad
    found = dict(image=out.image_embeds, text=out.text_embeds, logits=out.logits_per_image)
    return {
        "form": "transformers",
        "config": {"model_type": "siglip", **config},
        "tensors": shapes,
        "image": image,
        "tokens": tokens,
        "outputs": {k: rounded(v) for k, v in (found | {"gradient": gradient}).items()},
    }


def big_vision(image, tokens, prefix, stacked, *, layers, width, heads, **sizes):
    """Arrays of drawn values under big_vision's names, read by open_clip's own importer."""
    shapes = arrays(image, tokens, prefix, stacked, layers, width, heads, **sizes)
    drawn = {name: draw(name, tuple(shape)) for name, shape in shapes.items()}
    ratio = sizes["mlp_dim"] / width
    trunk = timm.models.VisionTransformer(
        img_size=image[1], patch_size=sizes["patch_size"], num_classes=0, global_pool="map",
        embed_dim=width, depth=layers, num_heads=heads, mlp_ratio=ratio, class_token=False,
        act_layer="gelu_tanh",
    )  # fmt: skip
    text = TextTransformer(
        len(tokens[0]), sizes["vocab_size"], width, heads, layers, ratio, output_dim=width,
        no_causal_mask=True, pool_type="last", proj_bias=True,
        act_layer=lambda: torch.nn.GELU(approximate="tanh"),
        norm_layer=lambda features: torch.nn.LayerNorm(features, eps=1e-6),
    )  # fmt: skip

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = torch.nn.Module()
            self.visual.trunk, self.text = trunk, text
            self.logit_scale = torch.nn.Parameter(torch.zeros(()))
            self.logit_bias = torch.nn.Parameter(torch.zeros(()))

    model = Two().eval()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "drawn.npz")
        np.savez(path, **drawn)
        load_big_vision_weights(model, str(path))
    unit = [
        x / x.norm(dim=-1, keepdim=True) for x in (trunk(pixels(image)), text(torch.tensor(tokens)))
    ]
    logits = model.logit_scale.exp() * unit[0] @ unit[1].T + model.logit_bias
    logits.diagonal().sum().backward()
    found = dict(image=unit[0], text=unit[1], logits=logits, gradient=text.ln_final.weight.grad)
    return {
        "form": "big_vision",
        "tensors": shapes,
        "image": image,
        "tokens": tokens,
        "outputs": {k: rounded(v) for k, v in found.items()},
    }


def arrays(image, tokens, prefix, stacked, layers, width, heads, vocab_size, patch_size, mlp_dim):
    """big_vision's names and shapes."""
    head_width, patches = width // heads, (image[1] // patch_size) ** 2
    norm = {"scale": [width], "bias": [width]}
    attention = {"out/kernel": [heads, head_width, width], "out/bias": [width]}
    for name in ("query", "key", "value"):
        attention |= {f"{name}/kernel": [width, heads, head_width]}
        attention |= {f"{name}/bias": [heads, head_width]}
    mlp = {
        "Dense_0/kernel": [width, mlp_dim],
        "Dense_0/bias": [mlp_dim],
        "Dense_1/kernel": [mlp_dim, width],
        "Dense_1/bias": [width],
    }

    def under(name, shapes):
        return {f"{name}/{key}": shape for key, shape in shapes.items()}

    block = {
        **under("LayerNorm_0", norm),
        **under("MultiHeadDotProductAttention_0", attention),
        **under("LayerNorm_1", norm),
        **under("MlpBlock_0", mlp),
    }
    if stacked:
        blocks = under("encoderblock", {name: [layers, *shape] for name, shape in block.items()})
    else:
        blocks = {
            name: shape
            for i in range(layers)
            for name, shape in under(f"encoderblock_{i}", block).items()
        }
    blocks |= under("encoder_norm", norm)
    img = {
        "embedding/kernel": [patch_size, patch_size, 3, width],
        "embedding/bias": [width],
        "pos_embedding": [1, patches, width],
        **under("Transformer", blocks),
        "MAPHead_0/probe": [1, 1, width],
        **under("MAPHead_0/LayerNorm_0", norm),
        **under("MAPHead_0/MultiHeadDotProductAttention_0", attention),
        **under("MAPHead_0/MlpBlock_0", mlp),
    }
    txt = {
        "Embed_0/embedding": [vocab_size, width],
        "pos_embedding": [1, len(tokens[0]), width],
        **under("Encoder_0", blocks),
        "head/kernel": [width, width],
        "head/bias": [width],
    }
    shapes = {"t": [1], "b": [1], **under("img", img), **under("txt", txt)}
    return {prefix + name: shape for name, shape in shapes.items()}


def pixels(shape):
    """Drawn pictures as the public models take them: [B,3,S,S]."""
    x = picture(shape) / 127.5 - 1
    return torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)


def rounded(x):
    """Seven digits of each number."""
    return [float(f"{value:.7g}") for value in x.detach().flatten().tolist()]
