"""A captioner that mostly read tags, for the claim about language-model guidance.

  python -m capjax.train --config configs/guiding/tags.py --workdir runs/tags
  python -m capjax.train --workdir runs/sentences \\
      --config configs/guiding/language_model.py:captioner=runs/tags,style=sentences

Nine in ten captions are "photo red circle 12", one in ten is a sentence
(experiments/guiding/tags.py). Guided by a language model of sentences with alpha = beta = 1 it is
to write sentences about what it sees: `python -m capjax.reproduce guiding --scale small` measures
this, with its ablations. `:runlocal` takes a few steps.
"""

from capjax.config import base, parse_arg
from experiments.guiding.recipe import tiny_coca


def get_config(arg=""):
    arg = parse_arg(arg, steps=1500, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 8 if arg.runlocal else 64
    config.log_every = 2 if arg.runlocal else 100

    tiny_coca(config, arg.runlocal)
    config.task = dict(name="capjax.tasks.coca", conditioning_dropout=0.5)
    pictures = dict(name="experiments.guiding.tags", style="mixed")
    config.data.train = dict(pictures, split="train", size=100 if arg.runlocal else 10_000)
    config.data.cache = True

    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else 100
    config.checkpoint.every = 0
    config.mesh.data = 1  # too small to be worth splitting
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        guidance_scales=(1.0, 2.0),
        data=dict(pictures, split="val", size=16 if arg.runlocal else 200),
        batch_size=16 if arg.runlocal else 64,
    )
    return config
