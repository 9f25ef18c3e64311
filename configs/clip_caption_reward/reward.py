"""A captioner tuned by reinforcement with CLIP's similarity as the reward: phase 2 of CLIP reward.

  python -m capjax.train --workdir runs/clip_caption_reward/clips_grammar \\
      --config configs/clip_caption_reward/reward.py:captioner=CAPTIONER,judge=JUDGE,data=DIR

CAPTIONER and JUDGE are the runs of captioner.py and judge.py; DIR holds captions_train.jsonl and
captions_test.jsonl. `reward` is a row of the paper's table: cider, clips, cider_clips or
clips_grammar. As in the paper (arXiv 2205.13115): 5 captions drawn of each of 160 pictures (200 for
CIDEr alone), the greedy caption's reward as the baseline, 5e-6 for 25 epochs. CLIP-S weighs 2 and
grammar 1, as in the code that made the reported results; the paper's formula is
`clips_weight=1,grammar_weight=2`. Published: see experiments/clip_caption_reward/README.md.

`size=small` is the claims' (generated scenes; captioner of configs/guiding/scenes.py, judge of
judge.py:size=small), `size=flickr8k` that of real photographs on a few cores:

  python -m capjax.train --config configs/guiding/flickr8k.py:data=DIR --workdir runs/f8k/captioner
  python -m capjax.train --config configs/contrastive/flickr8k.py:data=DIR --workdir runs/f8k/clip
  python -m capjax.train --workdir runs/f8k/judge \\
      --config configs/clip_caption_reward/judge.py:size=flickr8k,clip=runs/f8k/clip,data=DIR
  python -m capjax.train --workdir runs/f8k/clips_grammar --config configs/clip_caption_reward/\\
reward.py:size=flickr8k,data=DIR,captioner=runs/f8k/captioner,judge=runs/f8k/judge

`shuffled=True` gives every caption another picture's reward, a control. `:runlocal`
takes a few steps on generated scenes, without a judge: CIDEr-D alone.
"""

from capjax.config import base, parse_arg
from capjax.runs import read_config
from experiments.clip_caption_reward import recipe

STEPS = {"paper": 25 * 708, "flickr8k": 300, "small": 500}
RATES = {"paper": 5e-6, "flickr8k": 1e-4, "small": 1e-4}


def get_config(arg=""):
    arg = parse_arg(
        arg,
        captioner="",
        judge="runs/clip_caption_reward/judge",
        data="data/coco",
        size="paper",
        reward="clips_grammar",
        clips_weight=2.0,
        grammar_weight=1.0,
        shuffled=False,
        steps=0,
        seed=0,
    )
    recipe.check_size(arg.size)
    config = base()
    config.seed = arg.seed
    size = "small" if arg.runlocal else arg.size
    config.steps = 4 if arg.runlocal else arg.steps or STEPS[size]
    pictures = 200 if arg.reward == "cider" else 160
    config.batch_size = 16 if arg.runlocal else {"paper": pictures}.get(size, 32)
    config.accumulate_steps = 2  # the texts of one half are read while the other is drawn
    config.log_every = 2 if arg.runlocal else 25

    if size == "paper":
        recipe.paper_captioner(config)
    else:
        recipe.tiny_captioner(config, arg.runlocal)
    if arg.captioner:
        before = read_config(arg.captioner)
        config.model, config.tokenizer = before.model.to_dict(), before.tokenizer.to_dict()
        config.data.image_size, config.data.resize = before.data.image_size, before.data.resize
        config.init_from = arg.captioner

    if size == "small":
        train = recipe.scenes("train", 100_000)
        corpus = recipe.scenes("train", 200 if arg.runlocal else 5000)
        test = recipe.scenes("val", 32 if arg.runlocal else 200)
    else:
        train = corpus = recipe.photographs(arg.data, "train")
        test = recipe.photographs(arg.data, "test" if size == "paper" else "dev")
    config.data.train = train
    config.data.long_captions = "truncate"

    reward = "cider" if arg.runlocal else arg.reward
    config.task = dict(
        name="capjax.tasks.policy",
        rewards=recipe.rewards(
            reward,
            arg.judge,
            corpus,
            clips_weight=arg.clips_weight,
            grammar_weight=arg.grammar_weight,
            prefix=recipe.PREFIX if size == "paper" else "",  # other judges never read it
            shuffled=arg.shuffled,
        ),
        baseline="greedy",
        normalise="batch",
        sampling=dict(samples=2 if arg.runlocal else 5),
    )

    config.optimizer.name = "adam"
    config.optimizer.weight_decay = 0.0
    config.optimizer.learning_rate = RATES[size]
    config.optimizer.schedule.name = "constant"
    config.checkpoint.every = max(config.steps // 2, 1)
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        data=test,
        resize=config.data.resize,
    )
    return config
