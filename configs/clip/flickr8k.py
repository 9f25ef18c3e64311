"""A small CLIP on Flickr8k's real photographs and human captions, from scratch and in minutes.

  python -m capjax.train --config configs/clip/flickr8k.py:data=../shared/data/flickr8k \\
      --workdir runs/clip/flickr8k

`data` is a folder with captions_train.jsonl, captions_dev.jsonl and the tars they name. 6,000
photographs at 64 pixels are very few: expect retrieval well above chance and nothing like CLIP's.
`:permuted=True` trains on captions of other photographs, which must teach nothing; `:runlocal`
takes a few steps of a smaller run. What came out is in experiments/clip/README.md.
"""

from capjax.config import base, parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, data="data/flickr8k", permuted=False, steps=500, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 16 if arg.runlocal else 128
    config.log_every = 2 if arg.runlocal else 25

    layers, width = (1, 64) if arg.runlocal else (4, 192)
    config.model = dict(
        name="capjax.models.clip",
        variant="ViT-B/32",
        overrides=dict(
            image_layers=layers,
            image_width=width,
            image_heads=width // 64,
            patch_size=16,
            text_layers=layers // 2 or 1,
            text_width=width,
            text_heads=width // 64,
            embedding_dim=128,
        ),
    )
    config.task = dict(name="capjax.tasks.contrastive", initial_scale=1 / 0.07, max_scale=100.0)
    config.tokenizer.vocab_size = 600 if arg.runlocal else 3000
    config.tokenizer.max_length = 28
    config.tokenizer.num_records = 100 if arg.runlocal else 6000

    train = dict(name="capjax.data.manifest", path=f"{arg.data}/captions_train.jsonl")
    dev = dict(name="capjax.data.manifest", path=f"{arg.data}/captions_dev.jsonl")
    if arg.runlocal:
        train, dev = dict(train, limit=100), dict(dev, limit=20)
    config.data.train = (
        dict(name="capjax.data.mismatched", data=train, share=1.0) if arg.permuted else train
    )
    config.data.image_size = 64
    config.data.crop_scale = (0.6, 1.0)
    config.data.flip = True  # few captions of Flickr8k speak of left and right
    config.data.long_captions = "truncate"
    config.data.cache = True

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.2
    config.optimizer.b2 = 0.98
    config.optimizer.epsilon = 1e-6
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else 50
    config.checkpoint.every = 250
    config.evals.retrieval = dict(type="capjax.evals.retrieval", every=config.steps, data=dev)
    return config
