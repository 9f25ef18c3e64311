"""BLIP's captioner of the transformers library."""

import numpy as np
import torch
import transformers
from peer_cases import draw, picture
from transformers import BlipConfig, BlipForConditionalGeneration

MADE_WITH = f"torch {torch.__version__}, transformers {transformers.__version__}"
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
WATCHED = "vision_model.embeddings.class_embedding"  # the gradient reaches it through everything


def cases():
    """Tied and not, epsilons that count, text narrower and wider than the picture."""
    return [
        case(
            [2, 32, 32, 3],
            [2, 9],
            dict(vocab_size=60, hidden_size=32, encoder_hidden_size=48, intermediate_size=80,
                 num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24,
                 bos_token_id=58, sep_token_id=46),
            dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=3,
                 image_size=32, patch_size=16),
        ),
        case(
            [3, 24, 24, 3],
            [3, 6],
            dict(vocab_size=53, hidden_size=48, encoder_hidden_size=32, intermediate_size=64,
                 num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=17,
                 bos_token_id=51, sep_token_id=3, hidden_act="gelu_new", layer_norm_eps=1e-3),
            dict(hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                 image_size=24, patch_size=8, hidden_act="quick_gelu", layer_norm_eps=1e-2),
            tied=False,
        ),
    ]  # fmt: skip


def case(image, tokens, text, vision, tied=True):
    """States of the picture, logits, a gradient, and the captions that are written."""
    fields = dict(text_config=text, vision_config=vision, tie_word_embeddings=tied)
    text["tie_word_embeddings"] = tied
    model = BlipForConditionalGeneration(BlipConfig(**fields)).eval()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    head = "text_decoder.cls.predictions."
    if tied:
        del shapes[head + "decoder.weight"]
    del shapes[head + ("decoder.bias" if tied else "bias")]
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    model.load_state_dict(drawn, strict=False)
    pixels = (picture(image) / 255.0 - np.array(MEAN)) / np.array(DEVIATION)
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    rows = np.random.RandomState(sum(tokens)).randint(5, text["vocab_size"] - 2, tokens)
    rows[:, 0], rows[-1, -2:] = text["bos_token_id"], [text["sep_token_id"], 0]
    out = model(pixel_values=pixels, input_ids=torch.tensor(rows[:, :-1]))
    score = (out.logits**2).mean()
    score.backward()
    written, margin = greedy(model, pixels, text)
    return {
        "config": {"model_type": "blip", **fields},
        "tensors": shapes,
        "image": image,
        "tokens": rows.tolist(),
        "watched": WATCHED,
        "outputs": {
            "states": rounded(out.last_hidden_state),
            "logits": rounded(out.logits),
            "score": score.item(),
            "gradient": rounded(dict(model.named_parameters())[WATCHED].grad),
            "written": written.tolist(),
            "margin": margin,
        },
    }


def greedy(model, pixels, text):
    """The written tokens, and the least distance between a step's best score and its second."""
    special = [0, 1, 2, 4, text["bos_token_id"], text["bos_token_id"] + 1]
    written = model.generate(
        pixel_values=pixels,
        do_sample=False,
        num_beams=1,
        max_new_tokens=12,
        suppress_tokens=special,
        output_scores=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(written.scores).topk(2, -1).values
    return written.sequences, (best[..., 0] - best[..., 1]).min().item()


def rounded(x):
    """Seven digits of each number."""
    return [float(f"{value:.7g}") for value in x.detach().flatten().tolist()]
