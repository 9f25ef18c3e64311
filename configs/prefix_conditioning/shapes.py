"""A tiny CLIP on class names and captions at once, told by a prefix which of the two it reads.

  python -m capjax.train --config configs/prefix_conditioning/shapes.py \\
      --workdir runs/prefix_conditioning/shapes

A third of the batches are flat pictures of 12 shapes with their names in sentences, the rest
textured ones of 24 shapes with captions; at the end, pictures of the captions' style and of a third
one, never shown, are classified among the 12. `:prefix=False` trains without prefixes,
`:loss=unicl` with UniCL's loss, `:single_source=False` mixes both kinds in each batch, `:runlocal`
takes a few steps of a smaller run. What came out is in experiments/prefix_conditioning/README.md.
"""

from capjax.config import base, parse_arg
from experiments.prefix_conditioning.worlds import CLASSES, SHAPES, TEMPLATES


def get_config(arg=""):
    arg = parse_arg(arg, prefix=True, loss="softmax", single_source=True, steps=1500, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 16 if arg.runlocal else 128
    config.log_every = 2 if arg.runlocal else 50

    def layers(count):
        return 1 if arg.runlocal else count

    config.model = dict(
        name="capjax.models.clip",
        variant="ViT-B/32",
        overrides=dict(
            image_layers=layers(3),
            image_width=96,
            image_heads=2,
            patch_size=8,
            stem="conv",
            text_layers=layers(2),
            text_width=96,
            text_heads=2,
            embedding_dim=64,
        ),
        # The sources of the mixture in sorted order: a prefix is found by its source's number.
        prefixes=("cap", "cls") if arg.prefix else (),
        test_prefix="cap" if arg.prefix else "",
    )
    config.task = dict(
        name="capjax.tasks.contrastive", loss=arg.loss, initial_scale=1 / 0.07, max_scale=100.0
    )
    config.tokenizer.vocab_size = 320
    config.tokenizer.max_length = 20  # the longest caption has 16 pieces
    config.tokenizer.num_records = 2000

    world = dict(name="experiments.prefix_conditioning.worlds")
    config.data.train = dict(
        name="capjax.data.mixture",
        sources=dict(
            cap=dict(
                world,
                style="textured",
                split="train",
                size=500 if arg.runlocal else 20_000,
                shapes=SHAPES,
            ),
            cls=dict(
                name="capjax.data.prompted",
                data=dict(world, style="flat", split="train", size=500 if arg.runlocal else 10_000),
                classes=CLASSES,
                templates=TEMPLATES,
            ),
        ),
        weights=dict(cap=2.0, cls=1.0),
        single_source=arg.single_source,
    )
    config.data.image_size = 32
    config.data.cache = True  # 90 MB, and no scene is drawn twice

    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.b2 = 0.98
    config.optimizer.schedule.warmup_steps = config.steps // 10
    config.checkpoint.every = 500

    for name, style in (("cap_style", "textured"), ("third_style", "outlined")):
        config.evals[name] = dict(
            type="capjax.evals.zero_shot",
            every=config.steps,
            data=dict(world, style=style, split="test", size=32 if arg.runlocal else 1200),
            classes=CLASSES,
            templates=TEMPLATES,
        )
    return config
