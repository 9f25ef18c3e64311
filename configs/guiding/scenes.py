"""A captioner on generated scenes whose embedding is zeroed for half of the examples (guiding).

  python -m capjax.train --config configs/guiding/scenes.py --workdir runs/demo/captioner

Half of a picture's captions say nothing specific ("there is a shape here"), so plain greedy
decoding says nothing specific either; guidance brings out what the picture shows.
`:variant=attention_pooling` trains CoCa's own design, `:runlocal` a few steps of a smaller run.
"""

from capjax.config import base, parse_arg
from experiments.guiding.recipe import tiny_coca


def get_config(arg=""):
    arg = parse_arg(arg, variant="bottleneck")
    config = base()
    config.steps = 4 if arg.runlocal else 1500
    config.batch_size = 64
    config.log_every = 2 if arg.runlocal else 100

    config.model = dict(
        name="capjax.models.coca",
        size="tiny",
        patch_size=8,
        variant=arg.variant,
        caption_queries=8 if arg.variant == "attention_pooling" else 0,
    )
    config.task = dict(name="capjax.tasks.coca", conditioning_dropout=0.5)
    config.tokenizer.vocab_size = 256
    config.tokenizer.max_length = 24
    config.tokenizer.num_records = 2000

    scenes = dict(
        name="capjax.data.scenes",
        seed=0,
        image_size=32,
        max_objects=1,
        sizes=("large",),
        captions=dict(generic=0.5, short=0.3, human=0.2),
    )
    config.data.train = dict(scenes, split="train", size=100 if arg.runlocal else 100_000)
    config.data.image_size = 32

    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup_steps = 2 if arg.runlocal else 200
    config.checkpoint.every = 500
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        guidance_scales=(1.0, 2.0),
        data=dict(scenes, split="val", size=16 if arg.runlocal else 500),
    )
    if arg.runlocal:
        # Like the others' few steps, so that all of them compile alike.
        tiny_coca(config, runlocal=True, variant=arg.variant)
        config.batch_size = 8
        config.evals.guidance.batch_size = 16
        config.mesh.data = 1
    return config
