"""A captioner on fused captions: the paper's last study; and the small world's three captioners.

  python -m capjax.weights import DOWNLOADED/blip-image-captioning-base --to runs/blip
  python -m capjax.train --workdir runs/rank_fuse/captioner --config \\
      configs/rank_fuse/captioner.py:init=runs/blip,data=DIR,curated=runs/curate/rank_fuse

DIR/captions_train.jsonl and captions_test.jsonl are COCO's Karpathy splits, `curated` what
configs/curate/rank_fuse.py made of the first. The paper fine-tunes OFA, which is not here; BLIP
stands in for it. Its settings were not at hand: those below are BLIP's for COCO (384 pixels, batch
256, 1e-5, 5 epochs). No number of this study was at hand either, and nothing has been trained with
it at this size.

`size=small,captions=KIND` is a tiny captioner on the small world (experiments/rank_fuse/worlds.py),
which sees colours, or shapes, or everything and errs; what came out is in
experiments/rank_fuse/README.md. `:runlocal` takes a few steps of an even smaller one.
"""

from capjax.config import base, parse_arg
from capjax.runs import read_config, tokenizer_of
from experiments.guiding.recipe import few_captioner_steps, tiny_captioner

EPOCH = 113_287 // 256  # steps
WORLD = dict(name="experiments.rank_fuse.worlds")


def get_config(arg=""):
    arg = parse_arg(
        arg,
        init="",
        data="data",
        curated="curated",
        size="paper",
        captions="colours",
        steps=0,
        seed=0,
    )
    config = base()
    config.seed = arg.seed
    train, validation = dict(WORLD, split="train"), dict(WORLD, split="val", size=16)
    if arg.runlocal:
        few_captioner_steps(config, dict(train, captions="full", size=100), validation)
        return config
    if arg.size == "small":
        # Every kind of captions reaches this size of the vocabulary, so that all compile alike.
        sizes = dict(steps=arg.steps or 4000, vocab_size=96, length=24)
        train = dict(train, captions=arg.captions, size=6400)
        tiny_captioner(config, train, validation, **sizes)
        return config
    config.steps = arg.steps or 5 * EPOCH
    config.batch_size = 256
    config.init_from = arg.init
    config.model = dict(name="capjax.models.blip", variant="base", dtype="bfloat16", remat="full")
    if arg.init:
        config.model.update(read_config(arg.init).model.to_dict())
        config.tokenizer = tokenizer_of(arg.init)
    config.tokenizer.max_length = 64  # fused captions are longer than COCO's
    config.task = dict(name="capjax.tasks.caption", conditioning_dropout=0.0)
    coco = dict(name="capjax.data.manifest", path=f"{arg.data}/captions_train.jsonl")
    config.data.train = dict(
        name="capjax.curate.pairs", data=coco, path=arg.curated, column="fused"
    )
    config.data.image_size = 384
    config.data.long_captions = "truncate"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.weight_decay = 0.05
    config.checkpoint.every = 1000
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        data=dict(name="capjax.data.manifest", path=f"{arg.data}/captions_test.jsonl"),
    )
    return config
