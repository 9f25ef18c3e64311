"""A toy CLIP on generated scenes of both styles: the frozen retriever of DiscriTune's claims.

  python -m capjax.train --workdir runs/discritune/retriever \\
      --config configs/discritune/retriever.py

At the paper's size the retriever is CLIP ViT-B/32 as it was published (`capjax.weights import`).
`:runlocal` takes a few steps.
"""

from capjax.config import base, parse_arg
from experiments.discritune.recipe import SHALLOW_CLIP, TOY_CLIP, scenes


def get_config(arg=""):
    arg = parse_arg(arg, steps=1000, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 16 if arg.runlocal else 64
    config.log_every = 2 if arg.runlocal else 50
    size = SHALLOW_CLIP if arg.runlocal else TOY_CLIP
    config.model = dict(name="capjax.models.clip", variant="ViT-B/32", overrides=size)
    config.task = dict(name="capjax.tasks.contrastive", initial_scale=1 / 0.07)
    config.tokenizer.vocab_size = 256
    config.tokenizer.max_length = 24
    config.tokenizer.num_records = 200 if arg.runlocal else 2000
    config.data.train = scenes("both", "train", 100_000)
    config.data.image_size = 32

    config.mesh.data = 1 if arg.runlocal else -1
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else config.steps // 10
    config.checkpoint.every = 500
    config.evals.retrieval = dict(
        type="capjax.evals.retrieval",
        every=config.steps,
        data=scenes("both", "val", 32 if arg.runlocal else 500),
    )
    return config
