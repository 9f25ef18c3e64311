"""A tiny CLIP on coloured shapes of which it never sees twelve: the small-scale claim of the paper.

  python -m capjax.train --config configs/clip/shapes.py --workdir runs/clip/shapes

Twelve of the 48 pairs of colour and shape are never shown; at the end their pictures are classified
among all 48. `:permuted=True` trains on captions of other pictures, which must teach nothing;
`:runlocal` takes a few steps of a smaller run. What came out is in experiments/clip/README.md.
"""

from capjax.config import base, parse_arg
from experiments.clip.shapes import CLASSES


def get_config(arg=""):
    arg = parse_arg(arg, permuted=False, steps=1500, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 16 if arg.runlocal else 256
    config.log_every = 2 if arg.runlocal else 50

    layers = 1 if arg.runlocal else 4
    config.model = dict(
        name="capjax.models.clip",
        variant="ViT-B/32",
        overrides=dict(
            image_layers=layers,
            image_width=128,
            image_heads=2,
            patch_size=8,
            text_layers=2,
            text_width=128,
            text_heads=2,
            embedding_dim=64,
        ),
    )
    config.task = dict(name="capjax.tasks.contrastive", initial_scale=1 / 0.07, max_scale=100.0)
    config.tokenizer.vocab_size = 128
    config.tokenizer.max_length = 20
    config.tokenizer.num_records = 2000

    world = dict(name="experiments.clip.shapes")
    config.data.train = dict(
        world, split="train", size=1000 if arg.runlocal else 50_000, permuted=arg.permuted
    )
    config.data.image_size = 32
    config.data.cache = True  # 150 MB, and no scene is drawn twice

    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 0.2
    config.optimizer.b2 = 0.98
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else 100
    config.checkpoint.every = 500

    unseen = dict(world, split="test", size=32 if arg.runlocal else 600)
    templates = ("there is a {} here",)
    config.evals.unseen_pairs = dict(
        type="capjax.evals.zero_shot",
        every=config.steps,
        data=unseen,
        classes=CLASSES,
        templates=templates,
    )
    config.evals.seen_pairs = dict(config.evals.unseen_pairs, data=dict(unseen, split="val"))
    return config
