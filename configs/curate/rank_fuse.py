"""Several captioners, ranked by BLIP's score; the best two captions fused by a language model.

  python -m capjax.weights import DOWNLOADED/blip-itm-base-coco --to runs/itm
  OPENAI_BASE_URL=http://localhost:8000/v1 python -m capjax.curate run \\
      "configs/curate/rank_fuse.py:captioners=runs/a+runs/b+runs/c,scorer=runs/itm,model=NAME" \\
      --input captions.jsonl --output runs/curate/rank_fuse

`captioners` are runs joined by "+", in the order in which ties are broken, each decoded with
`num_beams` (by default BLIP's 3) or, where it is also among the runs of `sample`, drawn once.
`scorer` is a run of BLIP's image-text matching (`mode=itm`, the probability of a match) or of any
dual encoder (`mode=itc`, the cosine); `judge` is another one, which only scores. `model=script`
fuses by a rule of the small world instead, which is no model (experiments/rank_fuse/script.py).
Every call is kept by the picture, the model's weights, how it is decoded and the prompt, so that a
second run makes none.
"""

import numpy as np

from capjax.config import parse_arg
from capjax.curate.language.server import Server
from capjax.curate.pipeline import Pipeline
from capjax.curate.stages.captioning import Caption
from capjax.curate.stages.choosing import rank
from capjax.curate.stages.matching import MatchScore
from experiments.rank_fuse.pipeline import collect, fuse, pair, scripted


def get_pipeline(arg=""):
    arg = parse_arg(
        arg,
        captioners="runs/a+runs/b",
        sample="",
        scorer="runs/itm",
        judge="",
        mode="itm",
        model="model",
        key_from="",
        concurrency=64,
        num_beams=3,
        batch_size=16,
        seed=0,
    )
    runs = arg.captioners.split("+")
    names = [f"caption_{number}" for number in range(len(runs))]
    drawn = set(filter(None, arg.sample.split("+")))
    captioners = [
        Caption(
            run,
            options=dict(sample=True) if run in drawn else dict(num_beams=arg.num_beams),
            seed=arg.seed,
            output=name,
            name=f"captioner {number}",
            batch_size=arg.batch_size,
        )
        for number, (run, name) in enumerate(zip(runs, names, strict=True))
    ]
    if arg.model == "script":
        fused = scripted()
    else:
        fused = fuse(Server(arg.model, key_from=arg.key_from, concurrency=arg.concurrency))
    how = dict(mode=arg.mode, batch_size=arg.batch_size)
    judges, judged = (), ()
    if arg.judge:
        judges = (
            MatchScore(arg.judge, "candidates", several=True, output="candidates_judged", **how),
            MatchScore(arg.judge, "fused", output="fused_judged", **how),
        )
        judged = ("candidates_judged", "fused_judged")
    return Pipeline(
        name="rank and fuse",
        source={"key": str, "image": np.ndarray},
        seed=arg.seed,
        stages=(
            *captioners,
            collect(names),
            MatchScore(
                arg.scorer, "candidates", several=True, output="scores", name="rank by", **how
            ),
            rank("candidates", "scores", "ranked", most=2),
            pair(),
            fused,
            *judges,
        ),
        columns=(
            *("key", *names, "empty", "candidates", "scores", "scores_cut"),
            *("first", "second", "two"),
            *("fused", "fuse_status", "fuse_model", *judged),
        ),
    )
