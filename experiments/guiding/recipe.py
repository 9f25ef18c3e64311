"""What the configs of configs/guiding share: the paper's model and recipe, and its small stand-in.

Sources: guiding (arXiv 2307.16686, section 3 and its appendix) for fine-tuning; CoCa (arXiv
2205.01917) for pretraining, whose values guiding refers to.
"""

from __future__ import annotations

from ml_collections import ConfigDict

DECODED = (1.0, 1.2, 1.5, 2.0, 3.0, 4.0)  # guidance scales of Table 1


def paper_coca(config: ConfigDict, variant: str) -> None:
    """CoCa-Base on 288 pixels, in patches of 18; 64k SentencePiece pieces, captions of at most 64.

    Both variants have 256 caption queries; the bottleneck's decoder reads the one vector that the
    contrastive pooler makes of them. The length is not stated in the paper.
    """
    config.model = dict(
        name="capjax.models.coca",
        size="base",
        patch_size=18,
        variant=variant,
        caption_queries=256,
        dtype="bfloat16",
        remat="full",
    )
    config.data.image_size, config.data.resize = 288, "squash"
    config.tokenizer.vocab_size = 64_000
    config.tokenizer.max_length = 64
    config.tokenizer.num_records = 1_000_000
    config.data.long_captions = "truncate"
    config.data.max_bad_fraction = 0.01


def tiny_coca(config: ConfigDict, runlocal: bool, variant: str = "bottleneck") -> None:
    """A CoCa for generated pictures of 32 pixels.

    With `runlocal` all of these configs have one vocabulary size, so that they compile alike.
    """
    config.model = dict(
        name="capjax.models.coca", size="tiny", patch_size=8, variant=variant, caption_queries=8
    )
    config.data.image_size = 32
    config.data.long_captions = "truncate"
    config.tokenizer.vocab_size = 64 if runlocal else 128
    config.tokenizer.max_length = 24
    config.tokenizer.num_records = 100 if runlocal else 1000


def small_world(config: ConfigDict, pictures: dict, size: int, steps: int, runlocal: bool) -> None:
    """A tiny CoCa trained from scratch with dropout 0.5 on `size` generated `pictures`."""
    config.steps = 4 if runlocal else steps
    config.batch_size = 8 if runlocal else 64
    config.log_every = 2 if runlocal else 100
    tiny_coca(config, runlocal)
    config.task = dict(name="capjax.tasks.coca", conditioning_dropout=0.5)
    config.data.train = dict(pictures, split="train", size=100 if runlocal else size)
    config.data.cache = True
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup_steps = 1 if runlocal else 100
    config.checkpoint.every = 0
    config.mesh.data = 1  # too small to be worth splitting
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        guidance_scales=(1.0, 2.0),
        data=dict(pictures, split="val", size=16 if runlocal else 200),
        batch_size=16 if runlocal else 64,
    )


def tiny_captioner(
    config: ConfigDict, train: dict, validation: dict, *, steps: int, vocab_size: int, length: int
) -> None:
    """A tiny CoCa without its contrastive half that learns to tell shapes apart.

    Stem, rate, 4,000 steps and some 6,000 pictures were found on validation pictures: of those of
    capsfusion's world 99.7% are then named rightly.
    """
    tiny_coca(config, runlocal=False)
    config.model.update(stem="conv")
    config.task = dict(name="capjax.tasks.caption", conditioning_dropout=0.0)
    config.steps = steps
    config.batch_size = 32
    config.log_every = 100
    config.tokenizer.vocab_size, config.tokenizer.max_length = vocab_size, length
    config.data.train = train
    config.data.cache = True
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup_steps = 200
    config.checkpoint.every = 0
    config.mesh.data = 1
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        guidance_scales=(1.0,),
        data=validation,
    )


def few_captioner_steps(config: ConfigDict, train: dict, validation: dict) -> None:
    """What `:runlocal` does of it: a few steps of a smaller one, which compiles like the others."""
    tiny_coca(config, runlocal=True)
    fine_tuning(config, dropout=0.5, steps=4, runlocal=True)
    config.mesh.data = 1
    config.data.train = train
    guided_eval(config, validation, True)


def fine_tuning(config: ConfigDict, *, dropout: float, steps: int, runlocal: bool) -> None:
    """Adam, batch 128, the caption loss alone; 1,000 steps to 1e-5, then linearly to 0."""
    config.steps = 4 if runlocal else steps
    config.batch_size = 8 if runlocal else 128
    config.log_every = 2 if runlocal else 50
    config.task = dict(name="capjax.tasks.caption", conditioning_dropout=dropout)
    config.optimizer.name = "adam"
    config.optimizer.weight_decay = 0.0
    config.optimizer.learning_rate = 1e-5
    config.optimizer.clip_norm = 0.0
    config.optimizer.schedule.name = "linear"
    config.optimizer.schedule.warmup_steps = 1 if runlocal else 1000
    config.checkpoint.every = 1000


def start(config: ConfigDict, runlocal: bool, variant: str, init: str) -> None:
    """The model, with the parameters and the vocabulary of the run `init`, if one is given."""
    if runlocal:
        tiny_coca(config, runlocal, variant)
        config.mesh.data = 1
    else:
        paper_coca(config, variant)
    config.init_from = init


def guided_eval(config: ConfigDict, data: dict, runlocal: bool, encoder: str = "") -> None:
    """The sweep over guidance scales when training ends; `encoder`: CLIP ViT-B/32, imported."""
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        guidance_scales=(1.0, 2.0) if runlocal else DECODED,
        data=data,
        encoder=encoder,
        text_prefix="A photo depicts " if encoder else "",
        batch_size=16 if runlocal else 64,
        resize=config.data.resize,
    )


def manifest(path: str, **fields) -> dict:
    """The section of a JSONL manifest."""
    return dict(name="capjax.data.manifest", path=path, **fields)


def tars(pattern: str) -> dict:
    """The section of WebDataset tars, such as those that img2dataset writes."""
    return dict(name="capjax.data.webdataset", shards=pattern, max_bad_fraction=0.05)


def names_and_web(folder: str, pattern: str) -> dict:
    """Class names in prompts and web captions, as likely: what stands in for JFT-5B and ALIGN."""
    labels = dict(
        name="capjax.data.prompted",
        data=manifest(f"{folder}/imagenet21k.jsonl", max_bad_fraction=0.01),
        classes=f"{folder}/imagenet21k_classes.txt",
        templates=f"{folder}/templates.txt",
    )
    return dict(
        name="capjax.data.mixture",
        sources=dict(labels=labels, web=tars(f"{folder}/{pattern}")),
        single_source=False,
    )


def scenes(split: str, size: int) -> dict:
    """Generated pictures, which stand in for any data with `:runlocal`."""
    return dict(
        name="capjax.data.scenes",
        seed=0,
        image_size=32,
        max_objects=1,
        sizes=("large",),
        captions=dict(generic=0.5, short=0.5),
        split=split,
        size=size,
    )
