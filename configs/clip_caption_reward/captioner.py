"""The captioner that reinforcement starts from, by cross-entropy: phase 1 of CLIP reward.

  python -m capjax.weights import DOWNLOADED/clip-vit-base-patch32 --to runs/clip
  python -m capjax.train --workdir runs/clip_caption_reward/captioner \\
      --config configs/clip_caption_reward/captioner.py:clip=runs/clip,data=DIR

DIR holds captions_train.jsonl (train and restval of Karpathy's split) and captions_test.jsonl. As
in the paper (arXiv 2205.13115): all captions of 200 pictures a step, 15 epochs, 5e-4 after a
warm-up of 20,000 steps, which never ends within these 15 epochs; `warmup=1132` ends it after two.
Published: CIDEr 110.3, and 106.5 in somebody's second run. What differs from the paper's model is
told in experiments/clip_caption_reward/recipe.py. `:runlocal` takes a few steps of a tiny captioner
on generated scenes; that of the claims is trained by configs/guiding/scenes.py.
"""

from capjax.config import base, parse_arg
from experiments.clip_caption_reward.recipe import (
    PREFIX,
    paper_captioner,
    photographs,
    scenes,
    tiny_captioner,
)

RATE, EPOCHS, STEPS_OF_AN_EPOCH = 5e-4, 15, 566


def get_config(arg=""):
    arg = parse_arg(arg, clip="", data="data/coco", judge="", warmup=20_000, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else EPOCHS * STEPS_OF_AN_EPOCH
    config.batch_size = 16 if arg.runlocal else 1000
    config.log_every = 2 if arg.runlocal else 50
    config.task = dict(name="capjax.tasks.caption", conditioning_dropout=0.0)

    if arg.runlocal:
        tiny_captioner(config, arg.runlocal)
        train, test = scenes("train", 100_000), scenes("val", 32)
    else:
        paper_captioner(config)
        train = dict(name="capjax.data.each_caption", data=photographs(arg.data, "train"))
        test = photographs(arg.data, "test")
    if arg.clip:
        config.init_parts.image_tower = arg.clip
    config.data.train = train

    config.optimizer.name = "adam"
    config.optimizer.weight_decay = 0.0
    warmup = 1 if arg.runlocal else min(arg.warmup, config.steps)
    # A warm-up that is longer than the run: its rate when the run ends.
    config.optimizer.learning_rate = RATE * min(1.0, config.steps / arg.warmup)
    config.optimizer.schedule.warmup_steps = warmup
    config.optimizer.schedule.name = "rsqrt"
    config.optimizer.schedule.timescale = arg.warmup
    config.checkpoint.every = STEPS_OF_AN_EPOCH
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        data=test,
        resize=config.data.resize,
        encoder=arg.judge,
        text_prefix=f"{PREFIX} " if arg.judge else "",
    )
    return config
