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
from experiments.guiding.recipe import tiny_coca


def get_config(arg=""):
    arg = parse_arg(arg, steps=1000, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 8 if arg.runlocal else 64
    config.log_every = 2 if arg.runlocal else 100

    tiny_coca(config, arg.runlocal)
    config.task = dict(name="capjax.tasks.coca", conditioning_dropout=0.5)
    pictures = dict(name="experiments.guiding.fine_grained")
    config.data.train = dict(pictures, split="train", size=100 if arg.runlocal else 20_000)
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
