"""Between pretraining and COCO, for the model that a language model guides (Figure 6).

  python -m capjax.train --workdir runs/intermediate \\
      --config configs/guiding/intermediate.py:init=runs/pretrain,data=DIR

The paper fine-tunes on ALIGN, on JFT-5B pictures that a COCO-tuned CoCa-2B captioned, and on
internal data; all private, and neither the steps nor the rate are in the text at hand. In their
place DIR holds
    cc12m-{00000..01242}.tar     web captions, for ALIGN
    backcaptioned.jsonl          pictures captioned by the best COCO-tuned captioner at hand:
                                 `python -m capjax.caption --checkpoint runs/coco --images ..`
in equal parts; the recipe is that of fine-tuning on COCO (configs/guiding/coco.py), for 50,000
steps (ours). No result is published for this stage by itself, and none was measured here.
`:runlocal` takes a few steps of a tiny model on generated scenes.
"""

from capjax.config import base, parse_arg
from experiments.guiding.recipe import fine_tuning, guided_eval, manifest, scenes, start, tars


def get_config(arg=""):
    arg = parse_arg(
        arg,
        init="",
        data="data",
        tars="cc12m-{00000..01242}.tar",
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
        config.data.train, held_out = scenes("train", 100), scenes("val", 16)
    else:
        config.data.train = dict(
            name="capjax.data.mixture",
            sources=dict(
                back=manifest(f"{arg.data}/backcaptioned.jsonl", max_bad_fraction=0.01),
                web=tars(f"{arg.data}/{arg.tars}"),
            ),
            single_source=False,
        )
        held_out = manifest(f"{arg.data}/captions_val.jsonl", limit=1000)
    guided_eval(config, held_out, arg.runlocal)
    return config
