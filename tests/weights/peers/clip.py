"""CLIP of open_clip (ViT and ResNet, with OpenAI's names) and of transformers."""

import numpy as np
import open_clip
import torch
import transformers
from open_clip.model import CLIP
from peer_cases import draw, picture
from transformers import CLIPConfig, CLIPModel

MADE_WITH = (
    f"torch {torch.__version__}, open_clip_torch {open_clip.__version__}, "
    f"transformers {transformers.__version__}"
)
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def cases():
    """Each form with either activation."""
    text = dict(context_length=9, vocab_size=40, width=32, heads=4, layers=2)
    small = dict(context_length=6, vocab_size=23, width=48, heads=3, layers=1)
    return [
        openai([3, 32, 32, 3], [4, 9, 6], dict(
            embed_dim=24, text_cfg=text,
            vision_cfg=dict(layers=2, width=48, head_width=16, patch_size=8, image_size=32))),
        openai([2, 30, 30, 3], [5, 3], dict(
            embed_dim=40, text_cfg=small, quick_gelu=True,
            vision_cfg=dict(layers=1, width=32, head_width=8, patch_size=10, image_size=30))),
        openai([1, 64, 64, 3], [6], dict(
            embed_dim=16, text_cfg=small, quick_gelu=True,
            vision_cfg=dict(layers=[1, 1, 2, 1], width=4, head_width=64, image_size=64))),
        library([3, 24, 24, 3], [4, 9, 6], 24, {},
                dict(max_position_embeddings=9, vocab_size=40, hidden_size=32,
                     num_attention_heads=4, num_hidden_layers=2, eos_token_id=2),
                dict(image_size=24, patch_size=8, hidden_size=48, num_attention_heads=3,
                     num_hidden_layers=2)),
        library([2, 40, 40, 3], [7, 3], 48, {"hidden_act": "gelu"},
                dict(max_position_embeddings=7, vocab_size=29, hidden_size=48,
                     num_attention_heads=6, num_hidden_layers=1, eos_token_id=28),
                dict(image_size=40, patch_size=20, hidden_size=32, num_attention_heads=2,
                     num_hidden_layers=3)),
    ]  # fmt: skip


def openai(image, lengths, config):
    """One small CLIP of open_clip."""
    model = CLIP(**config)
    watched = "positional_embedding"
    found = answer(model, image, lengths, config["text_cfg"]["vocab_size"],
                   config["text_cfg"]["context_length"], watched)  # fmt: skip
    return {"form": "openai", "open_clip_config": {"model_cfg": config}, **found}


def library(image, lengths, embedding_dim, shared, text, vision):
    """One small CLIP of transformers."""
    text, vision = (
        {**fields, **shared, "intermediate_size": 4 * fields["hidden_size"]}
        for fields in (text, vision)
    )
    config = dict(text_config=text, vision_config=vision, projection_dim=embedding_dim)
    model = CLIPModel(CLIPConfig(**config))
    model.encode_image = lambda x: model(torch.tensor([[0]]), x).image_embeds
    model.encode_text = lambda ids: model(ids, torch.zeros(1, 3, *2 * [image[1]])).text_embeds
    found = answer(model, image, lengths, text["vocab_size"], text["max_position_embeddings"],
                   "text_model.embeddings.position_embedding.weight")  # fmt: skip
    return {"form": "transformers", "config": {"model_type": "clip", **config}, **found}


def answer(model, image, lengths, vocabulary, context, watched):
    """Both embeddings of drawn pictures and texts, and a gradient."""
    shapes = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if tensor.dtype == torch.float32 and not name.endswith("attn_mask")
    }
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    model.load_state_dict(drawn, strict=False)
    model.eval()
    pixels = (picture(image) / 255.0 - np.array(MEAN)) / np.array(DEVIATION)
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    rows = np.zeros((len(lengths), context), int)
    rng = np.random.RandomState(sum(lengths))
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = rng.randint(3, vocabulary - 2, length)
        row[0], row[length - 1] = vocabulary - 2, vocabulary - 1
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (
        model.encode_image(pixels), model.encode_text(torch.tensor(rows)))]  # fmt: skip
    score = (unit[0] * unit[1]).sum() * model.logit_scale.exp()
    score.backward()
    gradient = dict(model.named_parameters())[watched].grad
    return {
        "tensors": shapes,
        "image": image,
        "tokens": rows.tolist(),
        "outputs": {
            "image": rounded(unit[0]),
            "text": rounded(unit[1]),
            "score": score.item(),
            "gradient": rounded(gradient),
        },
    }


def rounded(x):
    """Seven digits of each number."""
    return [float(f"{value:.7g}") for value in x.detach().flatten().tolist()]
