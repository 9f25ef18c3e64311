"""CLIP or UniCL on ImageNet-21K and CC12M with a prefix for each: the paper's main setting.

  python -m capjax.train \\
      --config configs/prefix_conditioning/imagenet21k_cc12m.py:data=DIR,bpe=MERGES.txt.gz \\
      --workdir runs/prefix_conditioning/imagenet21k_cc12m

MERGES.txt.gz is CLIP's published bpe_simple_vocab_16e6.txt.gz. DIR holds

    imagenet21k.jsonl, imagenet21k_classes.txt  pictures with a `label`, and the names of all labels
    cc12m.jsonl                                 pictures with captions
    SET.jsonl, SET_classes.txt                  for each SET of TEST_SETS, like the first two

ImageNet-21K goes without the 1,000 classes of ImageNet-1K, so that this one stays a zero-shot test;
leave them out of your manifest and of its classes. The *.jsonl are for `capjax.data.manifest`.
`:prefix=False` is the baseline, `:loss=unicl` the other loss, `:single_source=False` mixes both
kinds in a batch, `:runlocal` takes a few steps of a tiny CLIP on generated shapes.

A ViT of about the size (384 wide, 12 layers, patches of 16) stands in for the paper's Swin-T; the
text tower (12 layers, 512 wide) and the projection (512) are those of UniCL's Swin-T. Five warm-up
epochs, cosine decay to 1% of the learning rate and clipping at 5 are checked in UniCL's code (arXiv
2204.03610), for its own 32 epochs at 5e-4. Unverified, since the tables and the appendix of the
paper (arXiv 2206.01125) were not at hand: batch 1,024, learning rate 1e-3, weight decay 0.1, 50
epochs, 224 pixels, sources drawn equally often, templates, and the sum of UniCL's two directions.
An epoch is taken for 23 million pictures (unverified), the size of both sets together. The crop is
that of configs/clip. Published: over 6 points more zero-shot accuracy, mean of 11 test sets, than
the same training without the prefix. Nothing has been trained with it here.
"""

from capjax.config import base, parse_arg
from experiments.prefix_conditioning.worlds import CLASSES, SHAPES, TEMPLATES

TEST_SETS = ("imagenet", "imagenet_v2", "imagenet_r", "imagenet_a", "imagenet_sketch")
EPOCH = 23_000_000 // 1024  # steps


def get_config(arg=""):
    arg = parse_arg(
        arg,
        data="data",
        bpe="bpe_simple_vocab_16e6.txt.gz",
        prefix=True,
        loss="softmax",
        single_source=True,
        seed=0,
    )
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else 50 * EPOCH
    config.batch_size = 16 if arg.runlocal else 1024
    config.log_every = 2 if arg.runlocal else 100

    config.model = dict(
        name="capjax.models.clip",
        variant="ViT-B/16",
        overrides=dict(image_width=384, image_heads=6),
        # The sources of the mixture in sorted order: a prefix is found by its source's number.
        prefixes=("cap", "cls") if arg.prefix else (),
        test_prefix="cap" if arg.prefix else "",
    )
    config.task = dict(
        name="capjax.tasks.contrastive",
        loss=arg.loss,
        reduction="sum" if arg.loss == "unicl" else "mean",
        initial_scale=1 / 0.07,
        max_scale=100.0,
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
        config.tokenizer.vocab_size = 320
        config.tokenizer.max_length = 20
        config.tokenizer.num_records = 500
        shapes = dict(name="experiments.prefix_conditioning.worlds", split="train", size=200)
        captions = dict(shapes, style="textured", shapes=SHAPES)
        pictures, classes, templates = dict(shapes, style="flat"), CLASSES, TEMPLATES
        test = dict(shapes, style="outlined", split="test", size=32)
        tests = {"third_style": dict(data=test, classes=CLASSES)}
    else:
        config.model.dtype = "bfloat16"
        config.model.remat = "full"
        config.tokenizer = dict(name="capjax.data.clip_bpe", path=arg.bpe, max_length=77)
        captions = manifest(arg.data, "cc12m")
        pictures, classes = manifest(arg.data, "imagenet21k"), f"{arg.data}/imagenet21k_classes.txt"
        templates = ""  # those of capjax.data.prompts
        tests = {
            name: dict(data=manifest(arg.data, name), classes=f"{arg.data}/{name}_classes.txt")
            for name in TEST_SETS
        }
    config.data.train = dict(
        name="capjax.data.mixture",
        sources=dict(
            cap=captions,
            cls=dict(
                name="capjax.data.prompted", data=pictures, classes=classes, templates=templates
            ),
        ),
        single_source=arg.single_source,
    )
    config.data.image_size = 32 if arg.runlocal else 224
    config.data.resize = "crop"
    config.data.crop_scale = (0.9, 1.0)
    config.data.long_captions = "truncate"
    config.data.max_bad_fraction = 0.01

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 5.0
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else 5 * EPOCH
    config.optimizer.schedule.end_fraction = 0.01
    config.checkpoint.every = 5000
    for name, test in tests.items():
        config.evals[name] = dict(
            test,
            type="capjax.evals.zero_shot",
            every=4 if arg.runlocal else EPOCH,
            templates=templates,
            resize="crop",
        )
    return config


def manifest(folder, name):
    """The source section of DIR/name.jsonl."""
    return dict(name="capjax.data.manifest", path=f"{folder}/{name}.jsonl", max_bad_fraction=0.01)
