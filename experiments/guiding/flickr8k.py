"""The claims of guiding on real photographs: Flickr8k, from scratch, on its 1,000 dev pictures.

Captioner and judge are trained by configs/guiding/flickr8k.py and configs/contrastive/flickr8k.py
(or found finished in the work directory). Intervals are 95% paired bootstrap intervals over
pictures. The judge has seen the captioner's training pictures, never the dev pictures.
"""

from __future__ import annotations

import numpy as np

from capjax import config as configs
from capjax.evals.guidance import Evaluator, Sweep
from capjax.metrics.bootstrap import mean_difference
from capjax.reproduce import Finding, Setting
from capjax.runs import open_run
from capjax.train import train

SCALES = (0.0, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0)
COLUMNS = (
    "bleu_4",
    "rouge_l",
    "cider",
    "clipscore",
    "ref_only_clipscore",
    "ref_clipscore",
    "recall_at_1",
    "recall_at_5",
    "recall_at_10",
    "own_recall_at_1",
    "own_recall_at_10",
    "words",
    "distinct_captions",
    "truncated",
)


def sweep_dev(setting: Setting) -> Sweep:
    """Trains what is not there yet, and captions the dev pictures at every scale."""
    directories = {}
    for kind in ("contrastive", "guiding"):
        config = configs.load(f"configs/{kind}/flickr8k.py:data={setting.data}")
        directories[kind] = setting.workdir / f"flickr8k-{kind}"
        train(config, directories[kind])
    run = open_run(directories["guiding"])
    evaluator = Evaluator(
        model=run.model,
        tokenizer=run.tokenizer,
        data=run.config.evals.guidance.data.to_dict(),
        guidance_scales=SCALES,
        encoder=str(directories["contrastive"]),
    )
    return evaluator.sweep(run.params)


def rise(sweep: Sweep, metric: str, low: float, high: float) -> dict[str, float]:
    """The paired difference of a metric between two scales, with its interval."""
    first, second = (sweep.per_picture[scale][metric] for scale in (high, low))
    difference = mean_difference(first, second)
    return {
        f"at_{low:g}": float(np.mean(second)),
        f"at_{high:g}": float(np.mean(first)),
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
    }


def claims(setting: Setting) -> list[Finding]:
    """Sight helps, guidance singles out, agreement is the price; and the whole table."""
    sweep = sweep_dev(setting)
    sight = rise(sweep, "cider", 0.0, 1.0)
    judged, own = (rise(sweep, name, 1.0, 2.0) for name in ("recall_at_1", "own_recall_at_1"))
    price = rise(sweep, "cider", 1.0, 2.0)
    table = {
        f"gamma_{row['guidance_scale']:g}": {name: row[name] for name in COLUMNS}
        for row in sweep.rows
    }
    return [
        Finding(
            "sight",
            "the captioner beats itself fed zeros",
            "95% interval of the CIDEr difference above zero",
            sight["low"] > 0,
            sight,
        ),
        Finding(
            "retrieval_judged",
            "guided captions single out their picture for a separately trained encoder",
            "caption -> image R@1 among the dev pictures higher at gamma 2 than at gamma 1",
            judged["difference"] > 0,
            judged,
        ),
        Finding(
            "retrieval_own",
            "and in the captioner's own space",
            "own R@1 higher at gamma 2 than at gamma 1",
            own["difference"] > 0,
            own,
        ),
        Finding(
            "cider_falls",
            "agreement with the references is the price",
            "95% interval of the CIDEr difference below zero",
            price["high"] < 0,
            price,
        ),
        Finding("table", "every column at every scale", "none: reported only", None, table),
    ]
