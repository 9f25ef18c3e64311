"""A captioner of 24 kinds that its captions seldom name: the stand-in for Table B.2.

  python -m capjax.train --workdir runs/named --config configs/guiding/fine_grained.py:generic=0.0
  python -m capjax.train --workdir runs/fine_grained \\
      --config configs/guiding/fine_grained.py:init=runs/named
  echo '{"name": "experiments.guiding.fine_grained", "split": "test", "size": 480}' > classes.json
  python -m experiments.guiding.tables table_b2 --captioner runs/fine_grained --data classes.json \\
      --guidance 1,1.2,1.5,2,3 --out runs/tables

The first run reads captions that name the kind, as the paper's captioner did in pretraining; the
second goes on with captions of which four in five are "there is a shape here". Stanford Dogs, on
which the paper's COCO model is tried, is read as records with a `label`: give `table_b2` any data
with `--data` and its names with `--classes`. What came out is in experiments/guiding/README.md.
`:runlocal` takes a few steps.
"""

from capjax.config import base, parse_arg
from experiments.guiding.recipe import small_world


def get_config(arg=""):
    arg = parse_arg(arg, init="", generic=0.8, steps=0, seed=0)
    config = base()
    config.seed = arg.seed
    steps = arg.steps or (1000 if arg.init else 2000)
    pictures = dict(name="experiments.guiding.fine_grained", generic=arg.generic)
    small_world(config, pictures, 20_000, steps, arg.runlocal)
    if not arg.runlocal:
        config.model.update(stem="conv")  # with patches the kinds are not learned in minutes
    config.init_from = arg.init
    return config
