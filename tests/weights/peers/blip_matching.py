"""BLIP's matching scores of the transformers library."""

import numpy as np
import torch
from peer_cases import draw, picture
from peers.blip import DEVIATION, MADE_WITH, MEAN, WATCHED, rounded
from transformers import BlipConfig, BlipForImageTextRetrieval

__all__ = ["MADE_WITH", "cases"]
KERNEL = "text_encoder.encoder.layer.0.crossattention.self.key.weight"
ENDS = (2, 9, 5)  # of the rows' texts, the last of which is cut


def cases():
    """Text and picture of other widths, epsilons that count, a space narrower than both."""
    text = dict(
        vocab_size=60, hidden_size=32, encoder_hidden_size=48, intermediate_size=80,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24, bos_token_id=58,
        sep_token_id=3, layer_norm_eps=1e-4,
    )  # fmt: skip
    vision = dict(
        hidden_size=48, intermediate_size=96, num_hidden_layers=1, num_attention_heads=3,
        image_size=32, patch_size=16,
    )  # fmt: skip
    fields = dict(text_config=text, vision_config=vision, image_text_hidden_size=24)
    return [case([3, 32, 32, 3], fields)]


def case(image, fields):
    """Logits of pairs, the cosine of all with all, and slopes of the logits."""
    model = BlipForImageTextRetrieval(BlipConfig(**fields)).eval()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    model.load_state_dict(drawn)
    pixels = (picture(image) / 255.0 - np.array(MEAN)) / np.array(DEVIATION)
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    rows = np.random.RandomState(1).randint(5, 58, (3, 10))
    rows[:, 0] = 2  # [CLS]
    for row, end in zip(rows, ENDS, strict=True):
        row[end], row[end + 1 :] = 3, 0
    tokens, mask = torch.tensor(rows), torch.tensor(rows != 0).long()

    def score(head):
        out = model(tokens, pixels, use_itm_head=head, attention_mask=mask)
        return out.itm_score

    logits = score(True)
    (logits[:, 1] - logits[:, 0]).sum().backward()
    slopes = dict(model.named_parameters())
    return {
        "config": {"model_type": "blip", "architectures": [type(model).__name__], **fields},
        "tensors": shapes,
        "image": image,
        "tokens": rows.tolist(),
        "outputs": {
            "logits": rounded(logits),
            "cosines": rounded(score(False)),
            "gradient": rounded(slopes[WATCHED].grad),
            "kernel_gradient": rounded(slopes[KERNEL].grad[:2]),
        },
    }
