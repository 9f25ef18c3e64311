"""A captioner from published parts: an image encoder, a language model, and a layer between them.

  python -m capjax.weights import DOWNLOADED/clip-vit-base-patch32 --to runs/clip
  python -m capjax.weights import DOWNLOADED/gpt2 --to runs/gpt2
  python -m capjax.train --workdir runs/clip_gpt2 --config \
      configs/captioner/clip_gpt2.py:clip=runs/clip,gpt2=runs/gpt2,data=../shared/data/flickr8k

`clip` may be any imported encoder with a Vision Transformer (CLIP, SigLIP, ViT), `gpt2` any
imported language model. `data` is a folder with captions_train.jsonl, captions_dev.jsonl and the
tars they name. Trained are the layer between the two and, with `lora=8`, adapters of rank 8 in the
language model; `tune=all` trains everything but the image encoder. `connector=cross` adds
cross-attentions instead of a prefix. Half of the pictures are blanked out, for guidance. Without
`clip` and `gpt2` both start at random, which shows nothing but that the rest works; `:runlocal`
takes a few steps of a smaller run, on generated scenes.
"""

from capjax.config import base, parse_arg
from capjax.runs import read_config, tokenizer_of

LORA_ALONE = ("^(?!.*_lora/)(?!connection/)(?!pooler/)(?!.*cross)",)


def get_config(arg=""):
    arg = parse_arg(
        arg, clip="", gpt2="", data="data/flickr8k", connector="prefix", lora=0, tune="new", seed=0
    )
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else 5000
    config.batch_size = 8 if arg.runlocal else 64
    config.log_every = 2 if arg.runlocal else 50

    image = dict(name="capjax.models.clip", variant="ViT-B/32", overrides={})
    text = dict(variant="gpt2", overrides={})
    config.data.image_size, config.data.resize = 224, "crop"
    if arg.runlocal:
        small = dict(image_layers=1, image_width=64, image_heads=2, patch_size=16)
        image["overrides"], text["variant"] = small, "tiny"
        config.data.image_size = 32
    if arg.clip:
        imported = read_config(arg.clip)
        image = {"overrides": {}} | imported.model.to_dict()
        config.data.image_size = imported.data.image_size
        config.data.resize = imported.data.resize
        config.init_parts.image_tower = arg.clip
    if arg.gpt2:
        text = {"overrides": {}} | read_config(arg.gpt2).model.to_dict()
        config.tokenizer = tokenizer_of(arg.gpt2)
        config.init_parts.language_model = arg.gpt2
    if arg.lora:
        text["lora"] = dict(rank=arg.lora, alpha=2.0 * arg.lora, layers=("query", "value"))
    config.model = dict(
        name="capjax.models.captioner",
        image={key: image[key] for key in ("name", "variant", "overrides")},
        text={key: text[key] for key in ("variant", "overrides", "lora") if key in text},
        connector=arg.connector,
        queries=0 if arg.connector == "cross" else 10,
    )
    config.tokenizer.max_length = 40
    config.task = dict(name="capjax.tasks.caption", conditioning_dropout=0.5)
    config.optimizer.frozen = ("^image_tower/",) if arg.tune == "all" else LORA_ALONE

    if arg.runlocal:
        scenes = dict(name="capjax.data.scenes", seed=0, image_size=32, max_objects=2)
        train, dev = dict(scenes, split="train", size=100), dict(scenes, split="val", size=20)
    else:
        train = dict(name="capjax.data.manifest", path=f"{arg.data}/captions_train.jsonl")
        dev = dict(name="capjax.data.manifest", path=f"{arg.data}/captions_dev.jsonl")
    config.data.train = train
    config.data.long_captions = "truncate"
    config.data.cache = True

    config.optimizer.learning_rate = 2e-5 if arg.tune == "all" else 1e-3
    config.optimizer.weight_decay = 0.01
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else 200
    config.checkpoint.every = 1000
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        resize=config.data.resize,
        guidance_scales=(1.0, 2.0),
        data=dev,
    )
    return config
