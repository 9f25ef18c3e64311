"""ALIGN with EfficientNet-B7 and BERT-base as COYO-ALIGN trains it on COYO-700M.

  python -m capjax.train --config configs/align/b7_base.py:data=DIR,vocab=VOCAB.txt \\
      --workdir runs/align/b7_base

DIR holds train.jsonl (a manifest; ALIGN's own 1.8 billion pairs are private) and val.jsonl for
retrieval; VOCAB.txt is the vocabulary of BERT's uncased models (the paper makes one of 100,000
pieces from its alt-texts). Batch, steps, warm-up and learning rate are those of COYO's run; with
`:paper=True` those of the paper (arXiv 2102.05918, section 5). LAMB, weight decay 1e-5, linear
schedule, both softmax losses summed with labels smoothed by 0.1, temperature from 1 and unbounded,
BatchNorm in groups of 16 pictures. The loss is computed in blocks of 1,024 pairs.

Published, COYO B7-base on COYO-700M: Flickr30K 88.1 / 73.2, COCO 61.2 / 43.1, nearest neighbours on
ImageNet 68.6 (R@1, text from picture / picture from text). Nothing has been trained with it here.
A crop is a random 70% of the area with an aspect of its own, where the paper cuts 289 pixels
out of 346; evaluation sees the whole picture, not its centre. `:runlocal` takes a few steps of a
tiny ALIGN on generated scenes.
"""

from capjax.config import base, parse_arg


def get_config(arg=""):
    arg = parse_arg(
        arg, data="data", vocab="vocab.txt", paper=False, accumulate=1, variant="B7-base", seed=0
    )
    config = base()
    config.seed = arg.seed
    steps, batch_size, rate, warmup = (
        (1_200_000, 16_384, 1e-3, 10_000) if arg.paper else (300_000, 65_536, 2e-3, 40_000)
    )
    config.steps = 4 if arg.runlocal else steps
    config.batch_size = 16 if arg.runlocal else batch_size
    config.accumulate_steps = arg.accumulate  # exact: gradients are cached (GradCache)
    config.log_every = 2 if arg.runlocal else 100

    config.model = dict(name="capjax.models.align", variant=arg.variant)
    config.task = dict(
        name="capjax.tasks.contrastive",
        reduction="sum",
        label_smoothing=0.1,
        initial_scale=1.0,
        max_scale=0.0,  # none
        block=8 if arg.runlocal else 1024,
    )
    if arg.runlocal:
        config.model.update(
            batch_norm_group=8,
            overrides=dict(
                image_width=0.25, image_depth=0.1, text_layers=1, text_width=32, text_heads=1
            ),
        )
        config.tokenizer = dict(
            name="capjax.data.wordpiece", vocab_size=80, max_length=24, num_records=200
        )
        scenes = dict(name="capjax.data.scenes", image_size=32, max_objects=1, captions="short")
        config.data.train = dict(scenes, split="train", size=200)
        validation = dict(scenes, split="val", size=32)
    else:
        config.model.dtype = "bfloat16"
        config.model.remat = "full"
        config.tokenizer = dict(name="capjax.data.wordpiece", path=arg.vocab, max_length=64)
        config.data.train = dict(
            name="capjax.data.manifest", path=f"{arg.data}/train.jsonl", max_bad_fraction=0.01
        )
        validation = dict(name="capjax.data.manifest", path=f"{arg.data}/val.jsonl")
        config.data.max_bad_fraction = 0.01
    config.data.image_size = 32 if arg.runlocal else 289
    config.data.crop_scale = (0.7, 0.7)
    config.data.flip = True
    config.data.long_captions = "truncate"

    config.optimizer.name = "lamb"
    config.optimizer.learning_rate = rate
    config.optimizer.weight_decay = 1e-5
    config.optimizer.epsilon = 1e-6
    config.optimizer.schedule.name = "linear"
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else warmup
    config.checkpoint.every = 5000
    config.evals.retrieval = dict(
        type="capjax.evals.retrieval", every=4 if arg.runlocal else 5000, data=validation
    )
    return config
