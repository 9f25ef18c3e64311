"""A dual encoder on generated scenes: the space in which a captioner's captions are judged.

  python -m capjax.train --config configs/contrastive/scenes.py --workdir runs/demo/encoder

It is trained on another seed's scenes than the captioner of configs/guiding/scenes.py, and on
specific captions only: a judge of captions must know what can be said of a picture.
Append `:runlocal` to the config for a few steps of a smaller run.
"""

from capjax.config import base, parse_arg


def get_config(arg=""):
    arg = parse_arg(arg)
    config = base()
    config.steps = 10 if arg.runlocal else 1000
    config.batch_size = 16 if arg.runlocal else 64
    config.log_every = 5 if arg.runlocal else 100

    config.model = dict(name="capjax.models.dual_encoder", size="tiny", patch_size=8)
    config.task = dict(name="capjax.tasks.contrastive")
    config.tokenizer.vocab_size = 256
    config.tokenizer.max_length = 24
    config.tokenizer.num_records = 2000

    scenes = dict(
        name="capjax.data.scenes",
        seed=1,
        image_size=32,
        max_objects=1,
        sizes=("large",),
        captions=dict(short=0.4, human=0.6),
    )
    config.data.train = dict(scenes, split="train", size=100_000)
    config.data.image_size = 32

    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup_steps = 2 if arg.runlocal else 200
    config.checkpoint.every = 500
    config.evals.retrieval = dict(
        type="capjax.evals.retrieval",
        every=config.steps,
        data=dict(scenes, split="val", size=32 if arg.runlocal else 500),
    )
    return config
