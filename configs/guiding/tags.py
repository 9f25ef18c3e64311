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
from experiments.guiding.recipe import small_world


def get_config(arg=""):
    arg = parse_arg(arg, steps=1500, seed=0)
    config = base()
    config.seed = arg.seed
    pictures = dict(name="experiments.guiding.tags", style="mixed")
    small_world(config, pictures, 10_000, arg.steps, arg.runlocal)
    return config
