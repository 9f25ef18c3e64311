"""A tiny BLIP that ranks the small world's captions: whether they match a picture, and how well.

  python -m capjax.train --config configs/rank_fuse/matcher.py --workdir runs/rank_fuse/matcher

The paper ranks by a published BLIP-2; on photographs use an imported
Salesforce/blip-itm-base-coco in its place (`python -m capjax.weights import`), with no training.
`seed=1` is the judge that ranks nothing: it has other pictures, too. The captions are of
experiments/rank_fuse/worlds.py: some facts of a picture, or with `captions=full` all of them; then
what says little matches nothing, however true. On validation pictures true captions of two parts
beat full ones with errors in 85% of cases after 2,000 steps, with `captions=full` in 67%. Wrong
pairs are those of the batch that are most alike (`capjax.tasks.matching`). What came out is in
experiments/rank_fuse/README.md. `:runlocal` takes a few steps of a smaller run.
"""

from capjax.config import base, parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, captions="truth", steps=3000, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 8 if arg.runlocal else 32
    config.log_every = 2 if arg.runlocal else 50
    layers, width = (1, 32) if arg.runlocal else (2, 64)
    config.model = dict(
        name="capjax.models.blip_matching",
        variant="tiny",
        embedding_dim=width,
        overrides=dict(
            stem="conv",
            init_std=width**-0.5,
            image_layers=layers,
            image_width=width,
            image_heads=width // 16,
            image_mlp_dim=4 * width,
            text_layers=layers,
            text_width=width,
            text_heads=width // 16,
            text_mlp_dim=4 * width,
            max_positions=32,
        ),
    )
    config.task = dict(name="capjax.tasks.matching", ignore_duplicates=True)
    config.tokenizer.vocab_size = 96
    config.tokenizer.max_length = 24
    config.tokenizer.num_records = 200 if arg.runlocal else 2000
    world = dict(name="experiments.rank_fuse.worlds", captions=arg.captions)
    config.data.train = dict(
        world, split="train", seed=1 + arg.seed, size=100 if arg.runlocal else 8000
    )
    config.data.image_size = 32
    config.data.long_captions = "truncate"
    config.data.cache = not arg.runlocal
    config.mesh.data = 1  # too small to be worth splitting

    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else 200
    config.checkpoint.every = 0
    config.evals.retrieval = dict(
        type="capjax.evals.retrieval",
        every=config.steps,
        data=dict(world, captions="full", split="val", size=16 if arg.runlocal else 200),
    )
    return config
