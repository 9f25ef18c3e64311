"""A captioner on generated scenes, tuned by reinforcement on what its captions are worth.

  python -m capjax.train --config configs/guiding/scenes.py --workdir runs/demo/captioner
  python -m capjax.train --config configs/contrastive/scenes.py --workdir runs/demo/encoder
  python -m capjax.train --workdir runs/policy \\
      --config configs/policy/scenes.py:captioner=runs/demo/captioner,encoder=runs/demo/encoder

Self-critical (baseline=greedy) unless `:baseline=leave_one_out` or another one is given. With an
encoder the reward is that it finds the picture by its caption, and CIDEr-D (weight `:cider=0.1`)
beside it; without, CIDEr-D alone. Without a captioner it starts from nothing, which only shows that
the machinery runs, as `:runlocal` does.
"""

from capjax.config import base, parse_arg


def get_config(arg=""):
    arg = parse_arg(arg, captioner="", encoder="", baseline="greedy", cider=0.1)
    config = base()
    config.steps = 4 if arg.runlocal else 500
    config.batch_size = 16 if arg.runlocal else 64
    config.accumulate_steps = 2  # the strings of one half are scored while the other is drawn
    config.log_every = 2 if arg.runlocal else 25
    config.init_from = arg.captioner

    shallow = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)  # quick to compile
    config.model = dict(
        name="capjax.models.coca",
        size="tiny",
        size_overrides=shallow if arg.runlocal and not arg.captioner else {},
        patch_size=8,
        variant="bottleneck",
    )
    config.tokenizer.vocab_size = 256
    config.tokenizer.max_length = 24
    config.tokenizer.num_records = 2000

    scenes = dict(
        name="capjax.data.scenes",
        seed=0,
        image_size=32,
        max_objects=1,
        sizes=("large",),
        captions=dict(generic=0.5, short=0.3, human=0.2),
    )
    config.data.train = dict(scenes, split="train", size=100_000)
    config.data.image_size = 32

    rewards = dict(
        cider=dict(
            name="capjax.rewards.cider",
            weight=arg.cider if arg.encoder else 1.0,
            corpus=dict(scenes, split="train", size=200 if arg.runlocal else 5000),
        )
    )
    if arg.encoder:
        rewards["retrieval"] = dict(name="capjax.rewards.self_retrieval", run=arg.encoder)
    config.task = dict(
        name="capjax.tasks.policy",
        rewards=rewards,
        baseline=arg.baseline,
        sampling=dict(samples=2 if arg.runlocal else 5),
    )

    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule.name = "constant"
    config.optimizer.weight_decay = 0.0
    config.checkpoint.every = 500
    config.evals.guidance = dict(
        type="capjax.evals.guidance",
        every=config.steps,
        guidance_scales=(1.0,),
        data=dict(scenes, split="val", size=32 if arg.runlocal else 500),
        encoder=arg.encoder,
    )
    return config
