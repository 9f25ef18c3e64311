"""Models of pictures, and of pictures with texts, of the transformers library and timm."""

import json

import timm
import torch
from round_trips import tokenizer_files
from round_trips.inputs import arrays, draw, pictures, rounded
from round_trips.text_cases import rows, whole
from safetensors.torch import save_file
from transformers import (
    AutoImageProcessor,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

CONTEXT = 24  # of both towers' captions


def pixels(folder):
    """The pictures by the preprocessing in a folder: [2,3,S,S]."""
    return AutoImageProcessor.from_pretrained(folder)(pictures(), return_tensors="pt").pixel_values


def square(side):
    """A size in the words of the transformers library."""
    return {"height": side, "width": side}


def blip(tied, whole_processor=False):
    """`make` of a captioner; `whole_processor`: in the two files that newer versions write."""

    def make(folder):
        count = tokenizer_files.word_pieces(folder)
        config = BlipConfig(
            text_config=dict(
                vocab_size=count + 2, hidden_size=32, encoder_hidden_size=48,
                intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=24, bos_token_id=count, sep_token_id=3,
                tie_word_embeddings=tied,
            ),
            vision_config=dict(
                hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=3,
                image_size=32, patch_size=16,
            ),
            tie_word_embeddings=tied,
        )  # fmt: skip
        draw(BlipForConditionalGeneration(config)).save_pretrained(folder)
        pictures = BlipImageProcessor(size=square(32))
        if not whole_processor:
            pictures.save_pretrained(folder)
            return
        words = BertTokenizer.from_pretrained(folder)
        words.add_special_tokens({"bos_token": "[DEC]"})
        words.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
        BlipProcessor(pictures, words).save_pretrained(folder)
        (folder / "vocab.txt").unlink()

    return make


def blip_answer(folder, dtype):
    """States of the picture, and logits of captions."""
    model, x, found = whole(BlipForConditionalGeneration, folder, dtype), pixels(folder), {}
    for i, ids in enumerate(rows(folder)):
        out = model(pixel_values=x[i : i + 1], input_ids=ids)
        found |= {f"states_{i}": out.last_hidden_state, f"logits_{i}": out.logits}
    return arrays(**found)


def blip_matching(folder):
    """BLIP's matching head, with a vocabulary that has neither [DEC] nor [ENC]."""
    count = tokenizer_files.word_pieces(folder)
    text = dict(
        vocab_size=count + 2, hidden_size=32, encoder_hidden_size=48, intermediate_size=80,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=CONTEXT,
        bos_token_id=count, sep_token_id=3,
    )  # fmt: skip
    vision = dict(
        hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=3,
        image_size=32, patch_size=16,
    )  # fmt: skip
    config = BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=24)
    draw(BlipForImageTextRetrieval(config)).save_pretrained(folder)
    BlipImageProcessor(size=square(32)).save_pretrained(folder)


def blip_matching_answer(folder, dtype):
    """Logits and cosines of the pairs."""
    model, x = whole(BlipForImageTextRetrieval, folder, dtype), pixels(folder)
    found = {}
    for i, ids in enumerate(rows(folder)):
        for name, head in (("logits", True), ("cosine", False)):
            out = model(pixel_values=x[i : i + 1], input_ids=ids, use_itm_head=head)
            found[f"{name}_{i}"] = out.itm_score
    return arrays(**found)


def vit(folder):
    """With a classifier."""
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80,
        image_size=32, patch_size=8, num_labels=3,
    )  # fmt: skip
    draw(ViTForImageClassification(config)).save_pretrained(folder)
    ViTImageProcessor(size=square(32)).save_pretrained(folder)


def vit_answer(folder, dtype):
    """States of all tokens, and logits."""
    model, x = whole(ViTForImageClassification, folder, dtype), pixels(folder)
    return arrays(states=model.vit(x).last_hidden_state, logits=model(x).logits)


def vit_timm(folder):
    """timm's names and config.json."""
    sizes = dict(img_size=32, embed_dim=48, depth=3, num_heads=3, mlp_ratio=1.5)
    kind = "vit_tiny_patch16_224"
    model = draw(timm.create_model(kind, num_classes=5, **sizes))
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    pretrained = dict(
        input_size=[3, 32, 32], crop_pct=0.9, crop_mode="center", interpolation="bicubic",
        mean=[0.5] * 3, std=[0.5] * 3, classifier="head", first_conv="patch_embed.proj",
    )  # fmt: skip
    config = dict(
        architecture=kind, num_classes=5, global_pool="token", model_args=sizes,
        pretrained_cfg=pretrained,
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def vit_timm_answer(folder, dtype):
    """The same of timm."""
    model = rounded(timm.create_model(f"local-dir:{folder}", pretrained=True), dtype)
    preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    states = model.forward_features(torch.stack([preprocess(x) for x in pictures()]))
    return arrays(states=states, logits=model.forward_head(states))


def clip(folder):
    """CLIP of the transformers library."""
    count = tokenizer_files.clip(folder)
    text = dict(
        vocab_size=count, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=CONTEXT, bos_token_id=count - 2,
        eos_token_id=count - 1,
    )  # fmt: skip
    vision = dict(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192,
        image_size=24, patch_size=8,
    )  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    draw(CLIPModel(config)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 24}, crop_size=square(24)).save_pretrained(folder)


def clip_whole_processor(folder):
    """The same with tokenizer.json and processor_config.json alone, as newer versions write it."""
    clip(folder)
    pictures = CLIPImageProcessor.from_pretrained(folder)
    CLIPProcessor(pictures, CLIPTokenizer.from_pretrained(folder)).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "preprocessor_config.json"):
        (folder / name).unlink()


def siglip(folder):
    """SigLIP of the transformers library."""
    options = dict(pad_id=-1, eos_id=1, unk_id=2, bos_id=-1, user_defined_symbols=["."])
    count = tokenizer_files.sentence_pieces(folder, "spiece.model", vocab_size=45, **options)
    shared = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    ends = dict(bos_token_id=1, eos_token_id=1, pad_token_id=1)
    config = SiglipConfig(
        text_config=shared | ends | dict(vocab_size=count, max_position_embeddings=CONTEXT),
        vision_config=shared | dict(image_size=32, patch_size=8),
    )
    draw(SiglipModel(config)).save_pretrained(folder)
    SiglipImageProcessor(size=square(32)).save_pretrained(folder)


def two_towers(kind):
    """`answer` of both: embeddings and logits."""

    def answer(folder, dtype):
        model = whole(kind, folder, dtype)
        ids = torch.cat(rows(folder, padding="max_length", max_length=CONTEXT))
        out = model(input_ids=ids, pixel_values=pixels(folder))
        return arrays(image=out.image_embeds, text=out.text_embeds, logits=out.logits_per_image)

    return answer


CASES = {
    "blip_tied": (blip(True), blip_answer),
    "blip_untied": (blip(False), blip_answer),
    "blip_processor": (blip(True, whole_processor=True), blip_answer),
    "blip_matching": (blip_matching, blip_matching_answer),
    "vit_transformers": (vit, vit_answer),
    "vit_timm": (vit_timm, vit_timm_answer),
    "clip_transformers": (clip, two_towers(CLIPModel)),
    "clip_processor": (clip_whole_processor, two_towers(CLIPModel)),
    "siglip_transformers": (siglip, two_towers(SiglipModel)),
}
