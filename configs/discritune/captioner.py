"""A prefix captioner on vague captions of one style of scenes: what DiscriTune's claims start from.

  python -m capjax.train --workdir runs/discritune/captioner \\
      --config configs/discritune/captioner.py:retriever=runs/discritune/retriever

Half of its captions name a colour and a shape and half name nothing, so that its greedy captions
are vague. The image tower is the retriever's and stays as it is. At the paper's size this is
ClipCap: configs/captioner/clip_gpt2.py with `tune=all`. `:runlocal` takes a few steps.
"""

from capjax.config import base, parse_arg
from experiments.discritune.recipe import scenes, tiny_captioner


def get_config(arg=""):
    arg = parse_arg(arg, retriever="", steps=1000, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 16 if arg.runlocal else 64
    config.log_every = 2 if arg.runlocal else 50
    tiny_captioner(config, arg.runlocal)
    if arg.retriever:
        config.init_parts.image_tower = arg.retriever
    config.task = dict(name="capjax.tasks.caption", conditioning_dropout=0.0)
    config.data.train = scenes("a", "train", 100_000)

    config.mesh.data = 1 if arg.runlocal else -1
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else config.steps // 10
    config.checkpoint.every = 500
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        data=scenes("a", "val", 32 if arg.runlocal else 200),
    )
    return config
