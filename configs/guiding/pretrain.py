"""The paper's CoCa-Base, pretrained on class names and web captions: where all its models start.

  python -m capjax.train --config configs/guiding/pretrain.py:data=DIR --workdir runs/pretrain

JFT-5B and ALIGN are private. In their place DIR holds
    imagenet21k.jsonl, imagenet21k_classes.txt     pictures with a `label`; the names of all labels
    cc12m-{00000..01242}.tar                       WebDataset tars of CC12M, or what `tars=` says
    templates.txt                                  CLIP's prompt templates, a line each
so that the model is trained on about 25 million pictures instead of billions, and its numbers must
be expected far below the paper's (Table 1 at gamma = 1: CIDEr 126.1, R@1 26.5). No such run was
made.

As in the paper and in CoCa's: half of each batch of 65,536 are class names in prompts, 500,000
steps, both losses with weights 1 (contrastive) and 2 (captions), Adafactor with beta1 0.9, beta2
0.999 and decay 0.01, 2% warm-up to 8e-4, then linear decay; no conditioning dropout. The paper adds
a small amount of other data, which is not named. `variant=attention_pooling` is Table B.1's model.
`:runlocal` takes a few steps of a tiny one on generated scenes.
"""

from capjax.config import base, parse_arg
from experiments.guiding.recipe import guided_eval, manifest, names_and_web, scenes, start


def get_config(arg=""):
    arg = parse_arg(
        arg,
        data="data",
        tars="cc12m-{00000..01242}.tar",
        variant="bottleneck",
        steps=500_000,
        seed=0,
    )
    config = base()
    config.seed = arg.seed
    config.steps = 4 if arg.runlocal else arg.steps
    config.batch_size = 8 if arg.runlocal else 65_536
    config.log_every = 2 if arg.runlocal else 100
    start(config, arg.runlocal, arg.variant, init="")
    config.task = dict(name="capjax.tasks.coca", contrastive_weight=1.0, caption_weight=2.0)

    if arg.runlocal:
        config.data.train, held_out = scenes("train", 100), scenes("val", 16)
    else:
        config.data.train = names_and_web(arg.data, arg.tars)
        held_out = manifest(f"{arg.data}/captions_val.jsonl", limit=1000)
        config.mesh.fsdp = 8

    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 8e-4
    config.optimizer.weight_decay = 0.01
    config.optimizer.schedule.name = "linear"
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else config.steps // 50
    config.checkpoint.every = 5000
    guided_eval(config, held_out, arg.runlocal)
    return config
