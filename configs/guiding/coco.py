"""Fine-tuning on COCO with conditioning dropout: Tables 1, B.1, 2 and B.4, Figures 1, 2 and 6.

  for m in 0.0 0.25 0.5 0.75; do for steps in 5000 10000 20000 50000; do
    python -m capjax.train --workdir runs/coco-$m-$steps --config \\
        configs/guiding/coco.py:init=runs/pretrain,data=data/coco,dropout=$m,steps=$steps
  done; done

Without `dropout` and `steps` it is the reported model: m = 0.5, 20,000 steps. `init` is a run of
configs/guiding/pretrain.py (or intermediate.py, for Figure 6); configs/guiding/coco_coca.py starts
from OpenCLIP's published CoCa instead. DIR holds
    captions_train.jsonl     Karpathy's train, restval and val, as in the paper
    captions_test.jsonl      Karpathy's test
`encoder` is an imported CLIP ViT-B/32 (`python -m capjax.weights import`), the paper's judge.

As in the paper: Adam, batch 128, 1,000 steps of warm-up to 1e-5, linear decay to 0. The caption
loss alone is CoCa's way and not stated in the paper. Published at m = 0.5 and 20,000 steps: CIDEr
126.1 and R@1 26.5 at gamma = 1, 78.6 and 44.6 at gamma = 2; the private pretraining is not to be
had, so expect less. No such run was made. `:runlocal` takes a few steps of a tiny model on
generated scenes.
"""

from capjax.config import base, parse_arg
from experiments.guiding.recipe import fine_tuning, guided_eval, manifest, scenes, start


def get_config(arg=""):
    arg = parse_arg(
        arg,
        init="",
        data="data/coco",
        encoder="",
        variant="bottleneck",
        dropout=0.5,
        steps=20_000,
        seed=0,
    )
    config = base()
    config.seed = arg.seed
    start(config, arg.runlocal, arg.variant, arg.init)
    fine_tuning(config, dropout=arg.dropout, steps=arg.steps, runlocal=arg.runlocal)
    if arg.runlocal:
        config.data.train, test = scenes("train", 100), scenes("test", 16)
    else:
        config.data.train = manifest(f"{arg.data}/captions_train.jsonl")
        test = manifest(f"{arg.data}/captions_test.jsonl")
    guided_eval(config, test, arg.runlocal, arg.encoder)
    return config
