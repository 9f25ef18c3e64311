"""CoCa of open_clip.

Its `generate` asks for a beam scorer that transformers 5 no longer has, so captions are written by
a plain loop over its forward: the whole row is read again for each token.
"""

import numpy as np
import open_clip
import torch
from open_clip.coca_model import CoCa
from peer_cases import draw, picture

MADE_WITH = f"torch {torch.__version__}, open_clip_torch {open_clip.__version__}"
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
WATCHED = "visual.class_embedding"  # the gradient reaches it through everything
BOS, PAD = 3, 0


def cases():
    """Both activations, heads of several widths, decoders deeper and shallower than texts."""
    return [
        case(
            [3, 32, 32, 3],
            [10, 6, 4],
            dict(
                embed_dim=32,
                vision_cfg=vision(32, 8, layers=2, width=48, head_width=16, queries=5, heads=4),
                text_cfg=text(10, 40, width=32, heads=4, layers=2),
                multimodal_cfg=dict(context_length=10, width=32, heads=2, layers=2),
            ),
        ),
        case(
            [2, 36, 36, 3],
            [13, 7],
            dict(
                embed_dim=48,
                quick_gelu=True,
                vision_cfg=vision(36, 12, layers=1, width=32, head_width=8, queries=3, heads=3),
                text_cfg=text(13, 53, width=48, heads=3, layers=1),
                multimodal_cfg=dict(context_length=13, width=48, heads=6, layers=3),
            ),
        ),
    ]


def vision(size, patch, *, layers, width, head_width, queries, heads):
    """The image tower's section."""
    return dict(
        image_size=size,
        patch_size=patch,
        layers=layers,
        width=width,
        head_width=head_width,
        attentional_pool=True,
        attn_pooler_queries=queries,
        attn_pooler_heads=heads,
        output_tokens=True,
    )


def text(context, vocabulary, **sizes):
    """The text tower's section."""
    return dict(
        context_length=context, vocab_size=vocabulary, embed_cls=True, output_tokens=True, **sizes
    )


def case(image, lengths, config):
    """Embeddings, the context, logits, a gradient, and the captions that are written."""
    model = CoCa(**config).eval()
    vocabulary, context = (config["text_cfg"][k] for k in ("vocab_size", "context_length"))
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    model.load_state_dict(drawn)
    pixels = (picture(image) / 255.0 - np.array(MEAN)) / np.array(DEVIATION)
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    rows = np.zeros((len(lengths), context), int)
    rng = np.random.RandomState(sum(lengths))
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = rng.randint(4, vocabulary - 1, length)
        row[0], row[length - 1] = BOS, vocabulary - 1
    rows[0, 3] = PAD  # as a word
    out = model(pixels, torch.tensor(rows))
    _, states = model._encode_image(pixels)
    similarity = (out["image_features"] * out["text_features"]).sum()
    score = (out["logits"] ** 2).mean() + similarity
    score.backward()
    with torch.no_grad():
        written, margin = greedy(model, pixels, context, vocabulary - 1)
    outputs = {
        "image": out["image_features"],
        "text": out["text_features"],
        "context": states,
        "logits": out["logits"],
        "gradient": dict(model.named_parameters())[WATCHED].grad,
    }
    return {
        "open_clip_config": {"model_cfg": config},
        "tensors": shapes,
        "image": image,
        "tokens": rows.tolist(),
        "outputs": {name: rounded(value) for name, value in outputs.items()}
        | {"score": score.item(), "written": written.tolist(), "margin": margin},
    }


def greedy(model, pixels, context, eos):
    """The most likely token, one by one; the least distance between a best score and a second."""
    latent, states = model._encode_image(pixels)
    rows = torch.full((len(pixels), 1), BOS)
    margin = float("inf")
    while rows.shape[1] < context:
        logits = model(pixels, rows, latent, states, output_labels=False)["logits"][:, -1]
        logits[:, BOS] = -torch.inf
        best = logits.topk(2).values
        ended = (rows == eos).any(1)
        margin = min(margin, (best[:, 0] - best[:, 1])[~ended].min().item())
        rows = torch.cat([rows, torch.where(ended, PAD, logits.argmax(-1))[:, None]], 1)
        if ((rows == eos).any(1)).all():
            break
    return rows, margin


def rounded(x):
    """Seven digits of each number."""
    return [float(f"{value:.7g}") for value in x.detach().flatten().tolist()]
