"""A captioner of 24 kinds that its captions seldom name: the stand-in for Table B.2.

  python -m capjax.train --config configs/guiding/fine_grained.py --workdir runs/fine_grained
  echo '{"name": "experiments.guiding.fine_grained", "split": "test", "size": 480}' > classes.json
  python -m experiments.guiding.tables table_b2 --captioner runs/fine_grained --data classes.json \\
      --guidance 1,1.2,1.5,2,3 --out runs/tables

Four in five captions are "there is a shape here". Stanford Dogs, on which the paper's COCO model is
tried, is read as records with a `label`: give `table_b2` any data with `--data` and its names with
`--classes`. What came out is in experiments/guiding/README.md. `:runlocal` takes a few steps.
"""

from capjax.config import base, parse_arg
from experiments.guiding.recipe import small_world


def get_config(arg=""):
    arg = parse_arg(arg, steps=1000, seed=0)
    config = base()
    config.seed = arg.seed
    pictures = dict(name="experiments.guiding.fine_grained")
    small_world(config, pictures, 20_000, arg.steps, arg.runlocal)
    return config
