"""Fine-tuning on Conceptual Captions with conditioning dropout: the third panel of Figure 5.

  python -m capjax.train --workdir runs/cc3m \\
      --config configs/guiding/conceptual_captions.py:init=runs/pretrain,data=data/cc3m

DIR holds the tars of CC3M that img2dataset writes, cc3m-{00000..00331}.tar or whatever `tars=`
says, and captions_val.jsonl with its validation pictures. As in the paper: 100,000 steps, m = 0.5;
batch and rate are those of COCO, for lack of others in the text at hand. The paper shows CLIP-S and
R@1 over CIDEr in the figure alone. No such run was made. `:runlocal` takes a few steps of a tiny
model on generated scenes.
"""

from capjax.config import base, parse_arg
from experiments.guiding.recipe import fine_tuning, guided_eval, manifest, scenes, start, tars


def get_config(arg=""):
    arg = parse_arg(
        arg,
        init="",
        data="data/cc3m",
        tars="cc3m-{00000..00331}.tar",
        encoder="",
        variant="bottleneck",
        dropout=0.5,
        steps=100_000,
        seed=0,
    )
    config = base()
    config.seed = arg.seed
    start(config, arg.runlocal, arg.variant, arg.init)
    fine_tuning(config, dropout=arg.dropout, steps=arg.steps, runlocal=arg.runlocal)
    if arg.runlocal:
        config.data.train, val = scenes("train", 100), scenes("val", 16)
    else:
        config.data.train = tars(f"{arg.data}/{arg.tars}")
        val = manifest(f"{arg.data}/captions_val.jsonl", max_bad_fraction=0.05)
    guided_eval(config, val, arg.runlocal, arg.encoder)
    return config
