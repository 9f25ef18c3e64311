"""Writes peer_outputs/*.json: what the public implementations compute from drawn weights.

Run it in an environment that has them; the tests themselves need none of it:

    pip install torch open_clip_torch transformers
    PYTHONPATH=tests python tests/models/make_peer_outputs.py

Every case holds the fields of our model (`model`), the input (`image`: shape of drawn pictures,
`tokens`), the names and shapes of the public model's tensors, and its outputs in float32.
"""

import json
import pathlib

import numpy as np
import open_clip
import torch
import transformers
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from peer_cases import TESTS, draw, picture

OUTPUTS = TESTS / "models" / "peer_outputs"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)

# Of EfficientNet. As at all published widths, no stage of stride 1 ends with as many channels as it
# starts with: there the library's blocks have no shortcut, which the original's do.
WIDTH = 0.35


def pixels(shape, mean=(0.5,) * 3, deviation=(0.5,) * 3):
    """Drawn pictures as the public models take them: [B,3,S,S]."""
    x = (picture(shape) / 255.0 - np.array(mean)) / np.array(deviation)
    return torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)


def unit(x):
    """Rows of unit length."""
    return x / x.norm(dim=-1, keepdim=True)


def answer(module, fields, image, tokens, compute):
    """Draws the module's weights and writes down what `compute(module)` gives."""
    shapes = {
        name: list(tensor.shape)
        for name, tensor in module.state_dict().items()
        if tensor.dtype == torch.float32 and not name.endswith("attn_mask")
    }
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    module.load_state_dict(drawn, strict=False)
    with torch.no_grad():
        outputs = compute(module.eval())
    return {
        "model": fields,
        "image": image,
        "tokens": tokens,
        "tensors": shapes,
        "outputs": {
            name: [[float(f"{x:.7g}") for x in row] for row in value.flatten(1).tolist()]
            for name, value in outputs.items()
        },
        "output_shapes": {name: list(value.shape) for name, value in outputs.items()},
    }


def texts(lengths, width, vocabulary, first=None, last=None):
    """Rows of words, each ending with `last` (the highest id by default), then zeros."""
    rng = np.random.RandomState(sum(lengths))
    rows = np.zeros((len(lengths), width), int)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = rng.randint(3, vocabulary - 2, length)
        row[0] = vocabulary - 2 if first is None else first
        row[length - 1] = vocabulary - 1 if last is None else last
    return rows.tolist()


def clip(variant, image, lengths, context, vocabulary, **overrides):
    """One small CLIP of OpenCLIP."""
    o = overrides
    resnet = o.get("patch_size") is None
    image_width = o["image_width"] * (32 if resnet else 1)
    vision = CLIPVisionCfg(
        layers=o["image_layers"],
        width=o["image_width"],
        head_width=image_width // o["image_heads"],
        patch_size=o.get("patch_size"),
        image_size=image[1],
    )
    text = CLIPTextCfg(
        context_length=context,
        vocab_size=vocabulary,
        width=o["text_width"],
        heads=o["text_heads"],
        layers=o["text_layers"],
    )
    tokens = texts(lengths, context, vocabulary)
    module = CLIP(o["embedding_dim"], vision, text, quick_gelu=True)
    fields = {
        "vocab_size": vocabulary,
        "max_length": context,
        "image_size": image[1],
        "variant": variant,
        "overrides": overrides,
    }

    def compute(module):
        return {
            "image": unit(module.encode_image(pixels(image, CLIP_MEAN, CLIP_DEVIATION))),
            "text": unit(module.encode_text(torch.tensor(tokens))),
        }

    return answer(module, fields, image, tokens, compute)


def siglip(image, tokens, vocabulary, **overrides):
    """One small SigLIP of transformers."""
    o = overrides
    shared = {
        "hidden_size": o["width"],
        "intermediate_size": o["mlp_dim"],
        "num_hidden_layers": o["layers"],
        "num_attention_heads": o["heads"],
    }
    context = len(tokens[0])
    text = {**shared, "vocab_size": vocabulary, "max_position_embeddings": context}
    text |= {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**shared, "image_size": image[1], "patch_size": o["patch_size"]}
    module = transformers.SiglipModel(
        transformers.SiglipConfig(text_config=text, vision_config=vision)
    )
    fields = {
        "vocab_size": vocabulary,
        "max_length": context,
        "image_size": image[1],
        "overrides": overrides,
    }

    def compute(module):
        out = module(input_ids=torch.tensor(tokens), pixel_values=pixels(image))
        return {"image": out.image_embeds, "text": out.text_embeds, "logits": out.logits_per_image}

    return answer(module, fields, image, tokens, compute)


def bert_fields(vocabulary, context, layers, width, heads):
    """The sizes of a BERT as transformers calls them."""
    return {
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }


def bert(lengths, vocabulary, context, layers, width, heads):
    """One small BERT of transformers, with two segments."""
    sizes = bert_fields(vocabulary, context, layers, width, heads)
    tokens = texts(lengths, max(lengths), vocabulary, first=1, last=2)
    segments = [[int(i > 2) for i in range(len(row))] for row in tokens]
    module = transformers.BertModel(transformers.BertConfig(**sizes))

    def compute(module):
        ids = torch.tensor(tokens)
        out = module(ids, attention_mask=(ids != 0).long(), token_type_ids=torch.tensor(segments))
        return {"cls": out.last_hidden_state[:, 0], "second": out.last_hidden_state[:, 1]}

    fields = {
        "vocab_size": vocabulary,
        "max_length": context,
        "layers": layers,
        "width": width,
        "heads": heads,
        "segments": segments,
    }
    return answer(module, fields, None, tokens, compute)


def efficientnet(image, width, depth, odd_blocks):
    """One small EfficientNet; `odd_blocks` are those that stride over a map of odd size."""
    config = transformers.EfficientNetConfig(
        width_coefficient=width,
        depth_coefficient=depth,
        image_size=image[1],
        hidden_dim=1280,
        depthwise_padding=odd_blocks,
    )
    config.hidden_dim = max(8, int(1280 * width + 4) // 8 * 8)
    module = transformers.EfficientNetModel(config)
    # Only the map of the last stage is asked for, before the classifier's convolution.
    module.encoder.top_conv = torch.nn.Identity()
    module.encoder.top_bn = torch.nn.Identity()
    module.encoder.top_activation = torch.nn.Identity()

    def compute(module):
        last = module.encoder(module.embeddings(pixels(image))).last_hidden_state
        return {"map": last.permute(0, 2, 3, 1)}

    return answer(module, {"width": width, "depth": depth}, image, None, compute)


def align(image, lengths, vocabulary, context, **overrides):
    """One small ALIGN of transformers."""
    o = overrides
    sizes = bert_fields(vocabulary, context, o["text_layers"], o["text_width"], o["text_heads"])
    vision = {
        "width_coefficient": o["image_width"],
        "depth_coefficient": o["image_depth"],
        "image_size": image[1],
    }
    last = max(8, int(320 * o["image_width"] + 4) // 8 * 8)
    config = transformers.AlignConfig(
        text_config=sizes, vision_config=vision, projection_dim=last, temperature_init_value=1.0
    )
    module = transformers.AlignModel(config)
    tokens = texts(lengths, max(lengths), vocabulary, first=1, last=2)
    fields = {
        "vocab_size": vocabulary,
        "max_length": context,
        "image_size": image[1],
        "overrides": overrides,
    }

    def compute(module):
        ids = torch.tensor(tokens)
        out = module(ids, pixels(image), attention_mask=(ids != 0).long())
        return {"image": out.image_embeds, "text": out.text_embeds, "logits": out.logits_per_image}

    return answer(module, fields, image, tokens, compute)


def families():
    """Every family's cases: two sizes each, odd batches."""
    text = {"text_width": 32, "text_heads": 2, "text_layers": 2}
    yield "clip_vit", [
        clip("ViT-B/32", [3, 32, 32, 3], [4, 9, 6], 9, 40, patch_size=8, image_layers=2,
             image_width=64, image_heads=4, embedding_dim=24, **text),
        clip("ViT-L/14", [5, 30, 30, 3], [7, 3, 5, 2, 6], 7, 23, patch_size=10, image_layers=1,
             image_width=48, image_heads=3, embedding_dim=40, text_width=48, text_heads=3,
             text_layers=1),
    ]  # fmt: skip
    text |= {"text_layers": 1}
    yield "clip_resnet", [
        clip("RN50", [3, 64, 64, 3], [4, 9, 6], 9, 40, image_layers=[1, 1, 1, 1],
             image_width=8, image_heads=4, embedding_dim=24, **text),
        clip("RN50x4", [1, 96, 96, 3], [5], 6, 23, image_layers=[1, 2, 1, 1],
             image_width=4, image_heads=2, embedding_dim=16, **text),
    ]  # fmt: skip
    yield "siglip", [
        siglip([3, 32, 32, 3], [[5, 8, 3, 1, 1], [4, 1, 1, 1, 1], [9, 9, 2, 7, 6]], 20,
               patch_size=8, layers=2, width=64, heads=4, mlp_dim=96),
        siglip([1, 42, 42, 3], [[5, 3, 1, 1, 1, 1, 1]], 13, patch_size=14, layers=1, width=36,
               heads=3, mlp_dim=72),
    ]  # fmt: skip
    yield (
        "bert",
        [
            bert([4, 9, 6], 30, 12, 2, 64, 4),
            bert([7, 3, 5, 2, 6], 17, 7, 1, 48, 3),
        ],
    )
    yield (
        "efficientnet",
        [
            efficientnet([1, 64, 64, 3], WIDTH, 0.1, []),
            # 36 -> 18 -> 9 -> 5 -> 3 -> 2: the third, fourth and sixth stage meet odd maps.
            efficientnet([3, 36, 36, 3], WIDTH, 0.5, [2, 3, 7]),
        ],
    )
    align_text = {"text_layers": 2, "text_width": 64, "text_heads": 4}
    yield "align", [
        align([3, 64, 64, 3], [4, 8, 6], 30, 12, image_width=WIDTH, image_depth=0.1, **align_text),
        align([1, 77, 77, 3], [5], 17, 7, image_width=0.4, image_depth=0.1, text_layers=1,
              text_width=48, text_heads=3),
    ]  # fmt: skip


def main():
    """Writes one file a family."""
    OUTPUTS.mkdir(exist_ok=True)
    made_with = (
        f"torch {torch.__version__}, open_clip_torch {open_clip.__version__}, "
        f"transformers {transformers.__version__}, {pathlib.Path(__file__).name}"
    )
    for name, cases in families():
        lines = ",\n".join(json.dumps(case) for case in cases)
        text = f'{{"made with": "{made_with}", "cases": [\n{lines}\n]}}\n'
        (OUTPUTS / f"{name}.json").write_text(text)


if __name__ == "__main__":
    main()
