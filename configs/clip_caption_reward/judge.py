"""A CLIP whose text tower also judges grammar: what rewards captions in phase 2 of CLIP reward.

  python -m capjax.weights import DOWNLOADED/clip-vit-base-patch32 --to runs/clip
  python -m capjax.train --config configs/clip_caption_reward/judge.py:clip=runs/clip,data=DIR \\
      --workdir runs/clip_caption_reward/judge

As in the paper (arXiv 2205.13115, section 3.2): the text tower, its projection, the scale and a
head of two layers learn on COCO's captions and corrupted copies of them, the pictures' side is
frozen; batches of 1,600, AdamW 1e-4 with 5% of warm-up, then linearly to 0 over 30 epochs, of which
the paper takes the 12th (keep step 4,248). DIR holds captions_train.jsonl and captions_test.jsonl.

`size=small` trains both towers and the head from nothing on generated scenes, `size=flickr8k` on
Flickr8k's photographs (`data=DIR` with captions_train.jsonl and captions_dev.jsonl), there with
`clip=RUN` as in the paper: from an encoder that was trained (configs/contrastive/flickr8k.py), the
pictures' side frozen, for 200 steps of 64. `grammar=0` leaves the head as it was at first, an
ablation. `:runlocal` takes a few steps of the small one.
"""

from capjax.config import base, parse_arg
from capjax.runs import read_config, tokenizer_of
from experiments.clip_caption_reward.recipe import check_size, judged_scenes, photographs

STEPS_OF_AN_EPOCH = 354  # 566,747 captions


def get_config(arg=""):
    arg = parse_arg(arg, clip="", data="data/coco", size="paper", grammar=1.0, steps=0, seed=0)
    check_size(arg.size)
    config = base()
    config.seed = arg.seed
    size = "small" if arg.runlocal else arg.size
    tuned = 200 if arg.clip else 1000
    steps = {"paper": 30 * STEPS_OF_AN_EPOCH, "flickr8k": tuned, "small": 1000}[size]
    config.steps = 4 if arg.runlocal else arg.steps or steps
    config.batch_size = 16 if arg.runlocal else {"paper": 1600, "flickr8k": 128, "small": 64}[size]
    config.log_every = 2 if arg.runlocal else 50
    config.task = dict(name="capjax.tasks.grammar", grammar_weight=arg.grammar)
    config.data.long_captions = "truncate"

    if size == "paper":
        _published(config, arg)
    elif size == "flickr8k":
        config.model = dict(
            name="capjax.models.dual_encoder",
            size="mini",
            patch_size=16,
            stem="conv",
            dropout=0.1,
        )
        config.tokenizer.vocab_size, config.tokenizer.num_records = 3000, 6000
        config.tokenizer.max_length = 28
        config.data.image_size, config.data.crop_scale = 112, (0.4, 1.0)
        config.data.flip = config.data.cache = True
        config.data.train, test = photographs(arg.data, "train"), photographs(arg.data, "dev")
        config.optimizer.weight_decay, config.optimizer.b2 = 0.1, 0.98
        if arg.clip:
            _from_encoder(config, arg.clip)
            config.batch_size = 64
    else:
        config.model = dict(name="capjax.models.dual_encoder", size="tiny", patch_size=8)
        if arg.runlocal:  # quick to compile
            config.model.size_overrides = dict(image_layers=1, unimodal_layers=1)
            config.mesh.data = 1
        config.tokenizer.vocab_size, config.tokenizer.num_records = 256, 2000
        config.tokenizer.max_length = 24
        config.data.image_size = 32
        config.data.train = judged_scenes("train", 100_000)
        test = judged_scenes("val", 32 if arg.runlocal else 500)
    if size == "paper":
        test = photographs(arg.data, "test")
    else:
        config.optimizer.learning_rate = 1e-4 if size == "flickr8k" and arg.clip else 1e-3
        config.optimizer.schedule.warmup_steps = 2 if arg.runlocal else config.steps // 10
        config.checkpoint.every = 500
    config.evals.retrieval = dict(
        type="capjax.evals.retrieval", every=config.steps, data=test, resize=config.data.resize
    )
    return config


def _published(config, arg):
    config.model = dict(name="capjax.models.clip", variant="ViT-B/32", overrides={})
    config.tokenizer.max_length = 77
    config.data.image_size, config.data.resize = 224, "crop"
    config.data.train = dict(name="capjax.data.each_caption", data=photographs(arg.data, "train"))
    config.optimizer.frozen = ("^image_",)
    if arg.clip:
        _from_encoder(config, arg.clip)
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.01
    config.optimizer.schedule.name = "linear"
    config.optimizer.schedule.warmup_steps = config.steps // 20
    config.checkpoint.every, config.checkpoint.keep = STEPS_OF_AN_EPOCH, 30


def _from_encoder(config, run):
    """Model, words and parameters of a run; what sees the pictures stays as it is."""
    before = read_config(run)
    config.model = before.model.to_dict()
    # Words of its own were learned from the same captions: learned again they are the same.
    known = "path" in before.tokenizer
    config.tokenizer = tokenizer_of(run) if known else before.tokenizer.to_dict()
    config.data.image_size, config.data.resize = before.data.image_size, before.data.resize
    for part in ("image_tower", "image_projection", "text_tower", "text_projection", "logit_scale"):
        config.init_parts[part] = run
    config.optimizer.frozen = ("^image_",)
