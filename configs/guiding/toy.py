"""The spec's toy world: one shape of 4 colours x 3 kinds, named by 40% of its captions.

  python -m capjax.train --config configs/guiding/toy.py --workdir runs/toy

60% of the captions are "there is a shape here", 40% "there is a COLOUR KIND here" (`:wording=toy`:
"a shape" and "a COLOUR KIND"). After the common words the guided scores are log 0.6 against
log 0.1 + gamma ln 4, so greedy decoding turns specific at gamma = ln 6 / ln 4 = 1.29.

`:masking=pixels` blackens half of the pictures in training instead of zeroing their embeddings (an
ablation), `:dropout=0` drops no conditioning (the paper's control).
"""

from capjax.config import base, parse_arg

REGISTERS = {"sentence": ("generic", "short"), "toy": ("toy_generic", "toy_specific")}


def get_config(arg=""):
    arg = parse_arg(arg, wording="sentence", masking="embedding", dropout=0.5, steps=1500)
    config = base()
    config.steps = 10 if arg.runlocal else arg.steps
    config.batch_size = 16 if arg.runlocal else 64
    config.log_every = 5 if arg.runlocal else 100

    config.model = dict(name="capjax.models.coca", size="tiny", patch_size=8)
    if arg.masking == "pixels":
        config.task = dict(name="experiments.guiding.pixel_masking", rate=arg.dropout)
    else:
        config.task = dict(name="capjax.tasks.coca", conditioning_dropout=arg.dropout)
    config.tokenizer.vocab_size = 128
    config.tokenizer.max_length = 12
    config.tokenizer.num_records = 1000

    generic, specific = REGISTERS[arg.wording]
    scenes = dict(
        name="capjax.data.scenes",
        image_size=32,
        max_objects=1,
        shapes=("circle", "square", "triangle"),
        colours=("red", "green", "blue", "yellow"),
        sizes=("large",),
        textures=("solid",),
        backgrounds=("plain",),
        captions={generic: 0.6, specific: 0.4},
    )
    config.data.train = dict(scenes, split="train", size=10_000)
    config.data.image_size = 32
    config.data.cache = True

    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup_steps = 2 if arg.runlocal else 100
    config.checkpoint.every = 0
    config.mesh.data = 1  # too small to be worth splitting
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        guidance_scales=(1.0, 2.0),
        data=dict(scenes, split="val", size=32 if arg.runlocal else 300),
    )
    return config
