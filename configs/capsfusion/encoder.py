"""A dual encoder on one of five kinds of captions: alt-texts, synthetic, rewritten, mixed or fused.

  python -m capjax.train --workdir runs/capsfusion/encoder --config \\
      configs/capsfusion/encoder.py:captions=fused,data=DIR,bpe=MERGES.txt.gz

DIR is that of configs/capsfusion/captioner.py, MERGES.txt.gz CLIP's published vocabulary. The paper
trains captioners alone; this is the same comparison for CLIP ViT-B/32, with the settings of
configs/clip/vit_b32.py in batches of 8,192, one epoch. No result of it is published, and nothing
has been trained with it. `:runlocal` takes a few steps of a tiny one on the small world.
"""

from capjax.config import base, parse_arg
from experiments.capsfusion.recipe import COLUMNS, curated, small_world

BATCH = 8192


def get_config(arg=""):
    arg = parse_arg(
        arg,
        captions="fused",
        scale=100_000_000,
        data="data",
        tars="{00000..11111}.tar",
        bpe="bpe_simple_vocab_16e6.txt.gz",
        seed=0,
    )
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else max(100, arg.scale // BATCH)
    config.batch_size = 16 if arg.runlocal else BATCH
    config.log_every = 2 if arg.runlocal else 50
    config.model = dict(name="capjax.models.clip", variant="ViT-B/32")
    config.task = dict(
        name="capjax.tasks.contrastive",
        initial_scale=1 / 0.07,
        max_scale=100.0,
        block=8 if arg.runlocal else 1024,
    )
    if arg.runlocal:
        # The sizes and numbers of configs/clip/vit_b32.py, so that both compile alike.
        config.model.overrides = dict(
            image_layers=1,
            image_width=32,
            image_heads=1,
            patch_size=8,
            text_layers=1,
            text_width=32,
            text_heads=1,
            embedding_dim=16,
        )
        config.tokenizer.vocab_size = 128
        config.tokenizer.max_length = 24
        config.tokenizer.num_records = 200
        config.data.train = small_world(arg.captions, 200)
        held_out = dict(name="experiments.capsfusion.worlds", split="val", size=32)
    else:
        config.model.dtype = "bfloat16"
        config.model.remat = "full"
        config.tokenizer = dict(name="capjax.data.clip_bpe", path=arg.bpe, max_length=77)
        tars = dict(name="capjax.data.webdataset", shards=f"{arg.data}/{arg.tars}")
        config.data.train = curated(tars, f"{arg.data}/curated", COLUMNS[arg.captions], arg.scale)
        held_out = dict(name="capjax.data.manifest", path=f"{arg.data}/coco_val.jsonl")
        config.data.max_bad_fraction = 0.01
    config.data.image_size = 32 if arg.runlocal else 224
    config.data.resize = "crop"
    config.data.crop_scale = (0.9, 1.0)
    config.data.long_captions = "truncate"

    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 0.2
    config.optimizer.b2 = 0.98
    config.optimizer.epsilon = 1e-6
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else 2000
    config.checkpoint.every = 5000
    config.evals.retrieval = dict(
        type="capjax.evals.retrieval",
        every=4 if arg.runlocal else config.steps,
        data=held_out,
        resize="crop",
    )
    return config
