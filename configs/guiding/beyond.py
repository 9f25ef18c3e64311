"""Captioners of generated scenes for what goes beyond the paper: experiments/guiding/beyond.py.

  python -m capjax.train --config configs/guiding/beyond.py --workdir runs/base
  python -m capjax.train --config configs/guiding/beyond.py:init=runs/base,null=zeros \\
      --workdir runs/captioner

Without `init` it is pretrained, with CoCa's joint loss and no dropped conditioning; with it, it is
fine-tuned as guiding fine-tunes, on the captions alone and with m = 0.5. `null` is what stands for
no picture then: `zeros` (the paper's), `learned` (a vector in their place) or `pixels` (the
embedding of a black picture). The world is that of configs/guiding/scenes.py: half of the captions
are generic. `captions=DIR,guidance=G` puts the captions that a captioner wrote at scale G, a folder
of `python -m capjax.caption --data`, in the place of the pictures' own: caption-space distillation.
`:runlocal` takes a few steps of a smaller run.
"""

from capjax.config import base, parse_arg
from capjax.errors import UserError

NULLS = ("zeros", "learned", "pixels")


def get_config(arg=""):
    arg = parse_arg(
        arg, init="", null="zeros", captions="", guidance=1.0, pictures=4000, steps=0, seed=0
    )
    if arg.null not in NULLS:
        raise UserError(f"null={arg.null} is unknown: choose one of {', '.join(NULLS)}")
    config = base()
    config.seed = arg.seed
    config.steps = arg.steps or (10 if arg.runlocal else 300 if arg.init else 1000)
    config.batch_size = 16 if arg.runlocal else 64
    config.log_every = 5 if arg.runlocal else 100
    config.init_from = arg.init

    # All have the vector, and all but one keep the zeros that it begins with.
    config.model = dict(name="capjax.models.coca", size="tiny", patch_size=8, learned_null=True)
    if arg.null != "learned":
        config.optimizer.frozen = ("^null$",)
    if not arg.init:
        config.task = dict(name="capjax.tasks.coca")
    elif arg.null == "pixels":
        weights = dict(contrastive_weight=0.0, caption_weight=1.0)
        config.task = dict(name="experiments.guiding.pixel_masking", rate=0.5, **weights)
    else:
        config.task = dict(name="capjax.tasks.caption", conditioning_dropout=0.5)
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
    config.data.train = dict(scenes, split="train", size=100_000)
    if arg.captions:
        config.data.train = dict(
            name="experiments.guiding.recaptioned",
            data=dict(scenes, split="train", size=arg.pictures),
            captions=arg.captions,
            guidance_scale=arg.guidance,
        )
        config.data.long_captions = "truncate"
    config.data.image_size = 32

    config.optimizer.learning_rate = 5e-4 if arg.init else 1e-3
    config.optimizer.schedule.warmup_steps = 2 if arg.runlocal else 50 if arg.init else 200
    config.checkpoint.every = 500
    config.mesh.data = 1  # too small to be worth splitting
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        guidance_scales=(1.0, 2.0),
        data=dict(scenes, split="val", size=32 if arg.runlocal else 128),
    )
    return config
