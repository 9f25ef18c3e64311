"""DiscriTune: a captioner tuned so that a frozen CLIP finds the picture by its caption.

  python -m capjax.weights import DOWNLOADED/clip-vit-base-patch32 --to runs/clip
  python -m capjax.weights import DOWNLOADED/gpt2 --to runs/gpt2
  python -m capjax.train --workdir runs/discritune/clip_cap \\
      --config configs/captioner/clip_gpt2.py:clip=runs/clip,gpt2=runs/gpt2,data=DIR,tune=all
  python -m capjax.train --workdir runs/discritune/coco --config configs/discritune/\\
reward.py:captioner=runs/discritune/clip_cap,retriever=runs/clip,data=DIR

DIR holds captions_train.jsonl and captions_test.jsonl, of which training reads the pictures alone.
As in the paper (arXiv 2304.01662): log softmax over the batch of 100 pictures as the reward, the
mean of all batches before as the baseline, captions drawn greedily, log p divided by the length,
Adam 1e-7, 20 epochs of COCO (`epochs=2,pictures=3000000` for Conceptual Captions). Published: P@1
among 100 on COCO 74.2 before, 84.8 after (experiments/discritune/README.md). `drawing=sampled`
draws 5 captions of each picture; `hard=N,negatives=FILE` adds N look-alikes to each row of
distractors (`capjax.rewards.self_retrieval.write_negatives`).

`size=small` is the claims' (captioner and retriever by the configs beside this one), with controls
`control=shuffled` and `control=flipped`; `size=flickr8k` is that of real photographs on a few
cores, with the captioner of configs/guiding/flickr8k.py and the encoder of configs/contrastive/
flickr8k.py as the retriever (`data=DIR` with captions_train.jsonl and captions_dev.jsonl; not run).
`:runlocal` takes a few steps of a tiny captioner, without a retriever: CIDEr-D instead.
"""

from capjax.config import base, parse_arg
from capjax.runs import read_config
from experiments.clip_caption_reward.recipe import photographs
from experiments.clip_caption_reward.recipe import scenes as demo_scenes
from experiments.clip_caption_reward.recipe import tiny_captioner as shallow_captioner
from experiments.discritune import recipe

RATES = {"paper": 1e-7, "flickr8k": 1e-5, "small": 1e-5}


def get_config(arg=""):
    arg = parse_arg(
        arg,
        captioner="",
        retriever="runs/clip",
        data="data/coco",
        size="paper",
        drawing="greedy",
        control="",
        epochs=20,
        pictures=113_287,
        negatives="",
        hard=0,
        steps=0,
        seed=0,
    )
    recipe.check(arg.size, arg.drawing, arg.control)
    config = base()
    config.seed = arg.seed
    size = "small" if arg.runlocal else arg.size
    steps = {"paper": arg.epochs * (arg.pictures // 100), "flickr8k": 1000, "small": 600}[size]
    config.steps = 4 if arg.runlocal else arg.steps or steps
    config.batch_size = 16 if arg.runlocal else {"small": 20}.get(size, 100)
    config.accumulate_steps = 2  # the texts of one half are read while the other is drawn
    config.log_every = 2 if arg.runlocal else 25

    if arg.runlocal:
        shallow_captioner(config, arg.runlocal)
        train, test = demo_scenes("train", 100_000), demo_scenes("val", 32)
        corpus = demo_scenes("train", 200)
        rewards = dict(cider=dict(name="capjax.rewards.cider", corpus=corpus))
    else:
        if size == "small":
            recipe.tiny_captioner(config, runlocal=False)
        else:
            recipe.clip_cap(config)
        rewards = dict(
            retrieval=recipe.retrieval(arg.retriever, arg.negatives, arg.hard, arg.control)
        )
        if size == "small":
            train, test = recipe.scenes("a", "train", 100_000), recipe.scenes("a", "val", 200)
        else:
            train = photographs(arg.data, "train")
            test = photographs(arg.data, "test" if size == "paper" else "dev")
    if arg.captioner:
        before = read_config(arg.captioner)
        config.model, config.tokenizer = before.model.to_dict(), before.tokenizer.to_dict()
        config.data.image_size, config.data.resize = before.data.image_size, before.data.resize
        config.optimizer.frozen = before.optimizer.frozen
        config.init_from = arg.captioner
    config.data.train = train
    config.data.long_captions = "truncate"

    drawn = dict(sample=True, samples=2 if arg.runlocal else 5)
    config.task = dict(
        name="capjax.tasks.policy",
        rewards=rewards,
        baseline="running_mean",
        normalise="caption",
        end_token="counted",
        sampling=dict(sample=False) if arg.drawing == "greedy" else drawn,
    )

    config.optimizer.name = "adam"
    config.optimizer.weight_decay = 0.0
    config.optimizer.learning_rate = RATES[size]
    config.optimizer.schedule.name = "constant"
    config.checkpoint.every = max(config.steps // 2, 1)
    config.evals.guidance = dict(
        type="capjax.evals.guidance", every=config.steps, data=test, resize=config.data.resize
    )
    return config
