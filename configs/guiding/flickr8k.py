"""A guided captioner on Flickr8k's real photographs and human captions, from scratch.

  python -m capjax.train --config configs/guiding/flickr8k.py:data=../shared/data/flickr8k \\
      --workdir runs/flickr8k/captioner
  python -m capjax.evaluate --checkpoint runs/flickr8k/captioner --encoder runs/flickr8k/encoder \\
      --guidance 0,1,1.2,1.5,2,3,4 --out runs/flickr8k

`data` is a folder with captions_train.jsonl, captions_dev.jsonl and the tars they name. The paper
pretrains on billions of pictures and then fine-tunes with conditioning dropout; here both losses
and the dropout (m = 0.5) run from the first step, on 6,000 pictures. The measured result is in
experiments/guiding/README.md. `:variant=attention_pooling` trains CoCa's own design, `:half=0` or 1
trains on every second picture, for half as many steps, so that a judge can have the others;
`:runlocal` takes a few steps of a smaller run.
"""

from capjax.config import base, parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, data="data/flickr8k", variant="bottleneck", half=-1, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else 1000 if arg.half < 0 else 500
    config.batch_size = 8 if arg.runlocal else 128
    config.log_every = 2 if arg.runlocal else 20

    config.model = dict(
        name="capjax.models.coca",
        size="tiny" if arg.runlocal else "mini",
        patch_size=16,
        stem="conv",
        variant=arg.variant,
        caption_queries=16 if arg.variant == "attention_pooling" else 0,
        dropout=0.1,
    )
    config.task = dict(name="capjax.tasks.coca", conditioning_dropout=0.5)
    config.tokenizer.vocab_size = 600 if arg.runlocal else 3000
    config.tokenizer.max_length = 24
    config.tokenizer.num_records = 100 if arg.runlocal else 6000

    train = dict(name="capjax.data.manifest", path=f"{arg.data}/captions_train.jsonl")
    dev = dict(name="capjax.data.manifest", path=f"{arg.data}/captions_dev.jsonl")
    if arg.runlocal:
        train, dev = dict(train, limit=100), dict(dev, limit=20)
    if arg.half >= 0:
        train = dict(name="capjax.data.fold", data=train, fold=arg.half, folds=2)
    config.data.train = train
    config.data.image_size = 64 if arg.runlocal else 96
    config.data.crop_scale = (0.4, 1.0)
    config.data.flip = True  # few captions of Flickr8k speak of left and right
    config.data.long_captions = "truncate"
    config.data.cache = True

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.b2 = 0.98
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else 100
    config.checkpoint.every = 200
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        guidance_scales=(1.0, 2.0),
        data=dev,
    )
    return config
