"""The captioner that never saw a caption dataset: Table 3 and Figure 8.

  python -m capjax.train --workdir runs/web_only \\
      --config configs/guiding/web_only.py:init=runs/pretrain,data=DIR

The paper goes on with its pretraining data (JFT-5B and ALIGN alone) for 50,000 more steps with m =
0.5. DIR is that of configs/guiding/pretrain.py, whose public substitutes stand in here too; CC12M
is cleaner than ALIGN, so that its unguided captions may be closer to COCO's. The captions are
measured on COCO's test set: `coco` is a folder with captions_test.jsonl. Adam, batch 128 and 1e-5
are those of COCO, for lack of others in the text at hand. Published: CIDEr 21.8 at gamma = 1, 25.2
at 1.5; with a language model and 50 captions as its prompt 59.7 (experiments/guiding/sweep.py). No
such run was made. `:runlocal` takes a few steps of a tiny model on generated scenes.
"""

from capjax.config import base, parse_arg
from experiments.guiding.recipe import (
    fine_tuning,
    guided_eval,
    manifest,
    names_and_web,
    scenes,
    start,
)


def get_config(arg=""):
    arg = parse_arg(
        arg,
        init="",
        data="data",
        tars="cc12m-{00000..01242}.tar",
        coco="data/coco",
        encoder="",
        variant="bottleneck",
        dropout=0.5,
        steps=50_000,
        seed=0,
    )
    config = base()
    config.seed = arg.seed
    start(config, arg.runlocal, arg.variant, arg.init)
    fine_tuning(config, dropout=arg.dropout, steps=arg.steps, runlocal=arg.runlocal)
    if arg.runlocal:
        config.data.train, test = scenes("train", 100), scenes("test", 16)
    else:
        config.data.train = names_and_web(arg.data, arg.tars)
        test = manifest(f"{arg.coco}/captions_test.jsonl")
    guided_eval(config, test, arg.runlocal, arg.encoder)
    return config
