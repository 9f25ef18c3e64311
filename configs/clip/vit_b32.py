"""CLIP ViT-B/32 as the paper trains it: 400 million pairs, batches of 32,768, 32 epochs.

  python -m capjax.train --config configs/clip/vit_b32.py:data=DIR,bpe=MERGES.txt.gz \\
      --workdir runs/clip/vit_b32

MERGES.txt.gz is the published bpe_simple_vocab_16e6.txt.gz. DIR holds train.jsonl (a manifest; WIT
is private: YFCC15M, CC12M or LAION stand in for it) and val.jsonl for retrieval. Settings are those
of tables 18 and 20 (arXiv 2103.00020); where it says mixed precision with gradient checkpointing,
this computes in bfloat16 and rematerialises blocks. The loss is computed in blocks of 1,024 pairs,
so that its memory does not grow with the square of the batch. Published: ImageNet zero-shot 63.2;
Flickr30K R@1 of the published weights 58.8 and 78.9 (picture from text, text from picture;
OpenCLIP's tables). Nothing has been trained with it here. `:runlocal` takes a few steps of a tiny
CLIP on generated scenes.
"""

from capjax.config import base, parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, data="data", bpe="bpe_simple_vocab_16e6.txt.gz", accumulate=1, seed=0)
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else 390_625
    config.batch_size = 16 if arg.runlocal else 32_768
    config.accumulate_steps = arg.accumulate  # exact: gradients are cached (GradCache)
    config.log_every = 2 if arg.runlocal else 100

    config.model = dict(name="capjax.models.clip", variant="ViT-B/32")
    config.task = dict(
        name="capjax.tasks.contrastive",
        initial_scale=1 / 0.07,
        max_scale=100.0,
        block=8 if arg.runlocal else 1024,
    )
    if arg.runlocal:
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
        scenes = dict(name="capjax.data.scenes", image_size=32, max_objects=1, captions="short")
        config.data.train = dict(scenes, split="train", size=200)
        validation = dict(scenes, split="val", size=32)
    else:
        config.model.dtype = "bfloat16"
        config.model.remat = "full"
        config.tokenizer = dict(name="capjax.data.clip_bpe", path=arg.bpe, max_length=77)
        config.data.train = dict(
            name="capjax.data.manifest", path=f"{arg.data}/train.jsonl", max_bad_fraction=0.01
        )
        validation = dict(name="capjax.data.manifest", path=f"{arg.data}/val.jsonl")
        config.data.max_bad_fraction = 0.01
    config.data.image_size = 32 if arg.runlocal else 224
    config.data.resize = "crop"
    # In place of the paper's random square crop of the resized picture: one that keeps 90% of it.
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
        every=4 if arg.runlocal else 5000,
        data=validation,
        resize="crop",
    )
    return config
