"""Guided captions on COCO from a published CoCa: the paper's fine-tuning, its middle setting.

  python -m capjax.weights import DOWNLOADED/coca_ViT-L-14-laion2B-s13B-b90k --to runs/coca
  python -m capjax.train --workdir runs/coco_coca \\
      --config configs/guiding/coco_coca.py:coca=runs/coca,data=data/coco

The paper (guiding, arXiv 2307.16686) fine-tunes a CoCa-Base of its own, pretrained on private data;
here it is OpenCLIP's, pretrained on LAION-2B, and its numbers will differ. `data` is a folder with
captions_train.jsonl (train and restval of Karpathy's split, to which the paper adds val) and
captions_test.jsonl with the pictures they name. As in the paper: Adam, batch 128, 1,000 steps of
warm-up to 1e-5, then linear decay to 0 at 20,000 steps, half of the examples without their
picture, the caption loss alone; `steps` and `dropout` span its grid. Without `coca` and with
`:runlocal` a small one starts at random, on generated scenes.
"""

from capjax.config import base, parse_arg
from capjax.runs import read_config, tokenizer_of

SMALL = dict(
    patch_size=16,
    image_layers=1,
    image_width=64,
    image_heads=2,
    text_width=64,
    text_heads=2,
    decoder_heads=2,
    embedding_dim=64,
    text_layers=1,
    decoder_layers=1,
    queries=8,
    pooler_heads=2,
)


def get_config(arg=""):
    arg = parse_arg(arg, coca="", data="data/coco", steps=20_000, dropout=0.5, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 8 if arg.runlocal else 128
    config.log_every = 2 if arg.runlocal else 50

    config.model = dict(name="capjax.models.open_clip_coca", variant="coca_ViT-L-14")
    config.data.image_size, config.data.resize = 224, "crop"
    config.tokenizer.max_length = 76
    if arg.runlocal:
        config.model.overrides = SMALL
        config.data.image_size = 32
        config.tokenizer.max_length = 24
    if arg.coca:
        imported = read_config(arg.coca)
        config.model = imported.model.to_dict()
        config.data.image_size = imported.data.image_size
        config.data.resize = imported.data.resize
        config.tokenizer = tokenizer_of(arg.coca)
        config.init_from = arg.coca
    config.task = dict(name="capjax.tasks.caption", conditioning_dropout=arg.dropout)

    if arg.runlocal:
        scenes = dict(name="capjax.data.scenes", seed=0, image_size=32, max_objects=2)
        train, test = dict(scenes, split="train", size=100), dict(scenes, split="test", size=20)
    else:
        train = dict(name="capjax.data.manifest", path=f"{arg.data}/captions_train.jsonl")
        test = dict(name="capjax.data.manifest", path=f"{arg.data}/captions_test.jsonl")
    config.data.train = train
    config.data.long_captions = "truncate"

    config.optimizer.name = "adam"
    config.optimizer.weight_decay = 0.0
    config.optimizer.learning_rate = 1e-5
    config.optimizer.clip_norm = 0.0
    config.optimizer.schedule.name = "linear"
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else 1000
    config.checkpoint.every = 1000
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        resize=config.data.resize,
        guidance_scales=(1.0, 2.0) if arg.runlocal else (1.0, 1.2, 1.5, 2.0, 3.0, 4.0),
        data=test,
    )
    return config
