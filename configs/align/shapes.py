"""A tiny ALIGN on coloured shapes, with captions that may belong to other pictures.

  python -m capjax.train --config configs/align/shapes.py --workdir runs/align/shapes

An EfficientNet and a BERT, both from scratch; one shape a picture, captions that say its colour,
shape, size, texture and place. Twelve of the 48 pairs of colour and shape are never shown. Loss,
optimiser and schedule are the paper's (LAMB at the learning rate of COYO's run on CC3M); there is
no drop-connect and no dropout, for the towers are small. Arguments:

  noise=0.5       this share of the pictures has the captions of another picture
  pairs=20000     how many pictures there are
  max_scale=1.0   keeps the temperature where it starts
  steps, seed     as they say

`:runlocal` takes a few steps of a smaller run. What came out is in experiments/align/README.md.
"""

from capjax.config import base, parse_arg

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
# Two of each shape, at most two of a colour: two diagonals of the 8 x 6 table.
HELD_OUT = tuple((COLOURS[(i + i // 6) % 8], SHAPES[i % 6]) for i in range(12))


def get_config(arg=""):
    arg = parse_arg(arg, noise=0.0, pairs=20_000, max_scale=0.0, steps=1000, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 16 if arg.runlocal else 64
    config.log_every = 2 if arg.runlocal else 50

    config.model = dict(
        name="capjax.models.align",
        variant="B3-mini",
        overrides=dict(
            image_width=0.25,
            image_depth=0.3,
            text_layers=2,
            text_width=96,
            text_heads=2,
        ),
        embedding_dim=64,
        batch_norm_group=16,
        depthwise="taps",  # for a CPU
        drop_connect=0.0,
        dropout=0.0,
    )
    config.task = dict(
        name="capjax.tasks.contrastive",
        reduction="sum",
        label_smoothing=0.1,
        initial_scale=1.0,  # sigma = 1
        max_scale=arg.max_scale,
    )
    config.tokenizer = dict(
        name="capjax.data.wordpiece", vocab_size=300, max_length=32, num_records=1000
    )

    scenes = dict(
        name="capjax.data.scenes",
        image_size=32,
        max_objects=1,
        shapes=SHAPES,
        colours=COLOURS,
        captions={"detailed": 1},
        hold_out=HELD_OUT,
    )
    train = dict(scenes, split="train", size=200 if arg.runlocal else arg.pairs)
    config.data.train = dict(name="capjax.data.mismatched", data=train, share=arg.noise)
    config.data.image_size = 32
    config.data.cache = True

    config.optimizer.name = "lamb"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.weight_decay = 1e-5
    config.optimizer.epsilon = 1e-6
    config.optimizer.schedule.name = "linear"
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else 100
    config.checkpoint.every = 500
    config.evals.retrieval = dict(
        type="capjax.evals.retrieval",
        every=config.steps,
        data=dict(scenes, split="test", size=32 if arg.runlocal else 64),
    )
    if arg.runlocal:
        like_b7_base(config)
    return config


def like_b7_base(config):
    """The sizes of b7_base.py's few steps, so that both compile alike."""
    config.unlock()
    config.model = dict(
        name="capjax.models.align",
        variant="B7-base",
        batch_norm_group=8,
        overrides=dict(
            image_width=0.25, image_depth=0.1, text_layers=1, text_width=32, text_heads=1
        ),
    )
    config.task.block = 8
    config.lock()
    config.tokenizer.update(vocab_size=80, max_length=24)
    config.data.long_captions = "truncate"
    config.optimizer.learning_rate = 2e-3
