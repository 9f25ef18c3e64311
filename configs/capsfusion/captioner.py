"""A captioner on one of five kinds of captions: alt-texts, synthetic, rewritten, mixed or fused.

  python -m capjax.weights import DOWNLOADED/clip-vit-large-patch14 --to runs/clip
  python -m capjax.weights import DOWNLOADED/Llama-2-7b-hf --to runs/llama
  python -m capjax.train --workdir runs/capsfusion/captioner --config \\
      configs/capsfusion/captioner.py:clip=runs/clip,llama=runs/llama,captions=fused,data=DIR

DIR holds {00000..11111}.tar (WebDataset, or whatever `tars=` says), and curated/, what
configs/curate/capsfusion.py made of them; coco_val.jsonl is what captions are measured on. `scale`
is the number of pairs, one epoch of it in batches of 8,192, with a peak of 3e-4, cosine decay to
3e-5 and 2,000 steps of warm-up for 100M pairs, 1,000 for 50M and 500 for 10M, as in the paper;
LLaMA stays frozen (`unfreeze=True` is its ablation). Where the paper has EVA-01-CLIP-g and a causal
transformer as the bridge, this has CLIP ViT-L/14 and a pooler of 32 queries. Published for
synthetic captions on COCO: CIDEr 102.5 at 10M pairs and 96.93 at 100M; fused captions at least
18.8 above the best other kind. Nothing has been trained with it at this size.

`size=small` is a tiny captioner on the small world (experiments/capsfusion/worlds.py), with
`curated=DIR` on what a pipeline wrote of it; what came out is in experiments/capsfusion/README.md.
`:runlocal` takes a few steps of an even smaller one.
"""

from capjax.config import base, parse_arg
from capjax.runs import read_config, tokenizer_of
from experiments.capsfusion.recipe import COLUMNS, curated, small_world
from experiments.guiding.recipe import few_captioner_steps, tiny_captioner

WARMUP = {10: 500, 50: 1000, 100: 2000}  # steps by millions of pairs
BATCH = 8192


def get_config(arg=""):
    arg = parse_arg(
        arg,
        captions="fused",
        size="paper",
        scale=100_000_000,
        data="data",
        tars="{00000..11111}.tar",
        clip="",
        llama="",
        unfreeze=False,
        curated="",
        steps=4000,
        seed=0,
    )
    config = base()
    config.seed = arg.seed
    validation = dict(name="experiments.capsfusion.worlds", split="val", size=16)
    if arg.runlocal:
        few_captioner_steps(config, small_world(arg.captions, 100), validation)
        return config
    if arg.size == "small":
        # Every kind of captions reaches this size of the vocabulary, so that all compile alike.
        sizes = dict(steps=arg.steps, vocab_size=110, length=28)
        train = small_world(arg.captions, min(arg.scale, 6400), arg.curated)
        tiny_captioner(config, train, validation, **sizes)
        return config
    config.steps = max(100, arg.scale // BATCH)
    config.batch_size = BATCH
    config.log_every = 50
    image = dict(name="capjax.models.clip", variant="ViT-L/14", overrides={})
    text = dict(variant="llama-2-7b", overrides={})
    if arg.clip:
        image = {"overrides": {}} | read_config(arg.clip).model.to_dict()
        config.init_parts.image_tower = arg.clip
    if arg.llama:
        text = {"overrides": {}} | read_config(arg.llama).model.to_dict()
        config.tokenizer = tokenizer_of(arg.llama)
        config.init_parts.language_model = arg.llama
    else:
        config.tokenizer.vocab_size = 32_000
    config.model = dict(
        name="capjax.models.captioner",
        image={key: image[key] for key in ("name", "variant", "overrides")},
        text={key: text[key] for key in ("variant", "overrides")},
        connector="prefix",
        queries=32,
        dtype="bfloat16",
        remat="full",
    )
    config.mesh.fsdp = 8
    config.tokenizer.max_length = 80
    config.task = dict(name="capjax.tasks.caption", conditioning_dropout=0.0)
    config.optimizer.frozen = () if arg.unfreeze else ("^language_model/",)
    tars = dict(name="capjax.data.webdataset", shards=f"{arg.data}/{arg.tars}")
    config.data.train = curated(tars, f"{arg.data}/curated", COLUMNS[arg.captions], arg.scale)
    config.data.image_size, config.data.resize = 224, "crop"
    config.data.long_captions = "truncate"
    config.data.max_bad_fraction = 0.01
    config.optimizer.learning_rate = 3e-4
    config.optimizer.schedule.end_fraction = 0.1
    config.optimizer.schedule.warmup_steps = WARMUP[
        min(WARMUP, key=lambda millions: abs(millions * 1_000_000 - arg.scale))
    ]
    config.checkpoint.every = 1000
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        resize="crop",
        data=dict(name="capjax.data.manifest", path=f"{arg.data}/coco_val.jsonl"),
    )
    return config
