"""Guiding on real photographs once more: three seeds, and a judge that saw other pictures.

Flickr8k's training pictures are cut in two (`capjax.data.fold`): captioners of three seeds learn
from one half, a judge from the other, so that the judge shares no picture with the captioners. The
judge of `flickr8k.py`, which has seen all of them, measures the same captions of the 1,000 dev
pictures. Intervals are of the mean over seeds, 95%, drawn over seeds and pictures
(`capjax.metrics.bootstrap_runs`). Claims and bounds were written before anything was trained.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from capjax import config as configs
from capjax.data.spec import open_spec
from capjax.decode.captioner import Captioner
from capjax.evals.encoder import Encoder
from capjax.metrics.bootstrap_runs import runs_difference, runs_interval
from capjax.metrics.measure import Measure
from capjax.reproduce import Finding, Setting
from capjax.runs import open_run
from capjax.train import train
from experiments.guiding import published, scoring, sweep
from experiments.guiding.flickr8k import SCALES

SEEDS = (0, 1, 2)
CAPTIONERS, JUDGE = 0, 1  # halves
LOW, HIGH = 1.0, 2.0  # the guidance scales that directions are read off
ALL, DISJOINT = "", "disjoint_"  # prefixes of the judges' columns
AGREEMENT = ("bleu_4", "rouge_l", "cider")
JUDGED = (
    *("clipscore", "ref_only_clipscore", "ref_clipscore"),
    *("recall_at_1", "recall_at_5", "recall_at_10"),
)
COLUMNS = (*AGREEMENT, *(p + c for p in (ALL, DISJOINT) for c in JUDGED), "own_recall_at_1")
COUNTS = ("words", "distinct_captions")  # that no interval is made of

Measured = dict[float, dict[str, list[Measure]]]  # scale -> column -> one a seed


def run_of(setting: Setting, kind: str, half: int | None, seed: int = 0) -> Path:
    """The run of configs/<kind>/flickr8k.py on all training pictures, or on a half of them."""
    told, name = f"data={setting.data},seed={seed}", f"flickr8k-{kind}"
    if half is not None:
        told += f",half={half}"
        name += f"-half-{half}" + (f"-seed-{seed}" if kind == "guiding" else "")
    directory = setting.workdir / name
    train(configs.load(f"configs/{kind}/flickr8k.py:{told}"), directory)
    return directory


def captioned(setting: Setting) -> tuple[Measured, dict[float, dict[str, list[float]]], dict]:
    """Of every seed at every scale what its captions score, the COUNTS, and of human captions."""
    opened = {
        "all": open_run(run_of(setting, "contrastive", None)),
        "disjoint": open_run(run_of(setting, "contrastive", JUDGE)),
    }
    encoders = {
        name: (Encoder(run.model, run.params, run.tokenizer), run.config.data.resize)
        for name, run in opened.items()
    }
    source = open_spec(str(Path(setting.data) / "captions_dev.jsonl"))
    found: Measured = {scale: {} for scale in SCALES}
    counts: dict[float, dict[str, list[float]]] = {scale: {} for scale in SCALES}
    people: dict[str, float] = {}
    for seed in SEEDS:
        run = open_run(run_of(setting, "guiding", CAPTIONERS, seed))
        captioner = Captioner(run.model, run.params, run.tokenizer)
        settings = [sweep.Setting(guidance_scale=scale) for scale in SCALES]
        written = sweep.write(
            captioner, source, settings, judges=encoders, resize=run.config.data.resize
        )
        spaces = {n: scoring.Judge(e, written["images"][n]) for n, (e, _) in encoders.items()}
        own = Encoder(run.model, run.params, run.tokenizer)
        people = people or scoring.human(written["references"], spaces)
        spaces["own"] = scoring.Judge(own, written["images"]["own"])
        for scale, captions in zip(SCALES, written["captions"], strict=True):
            row, measures = scoring.measured(captions, written["references"], spaces)
            for column in COLUMNS:
                found[scale].setdefault(column, []).append(measures[column])
            for name in COUNTS:
                counts[scale].setdefault(name, []).append(row[name])
    return found, counts, {c: people[c] for c in COLUMNS if c in people}


def change(found: Measured, column: str, low: float = LOW, high: float = HIGH) -> dict[str, float]:
    """Of a column from one scale to another: the mean over seeds of it, and the difference's
    interval over seeds and pictures; and in how many seeds it rises."""
    first, second = found[high][column], found[low][column]
    difference = runs_difference(first, second)
    rises = [a.value > b.value for a, b in zip(first, second, strict=True)]
    return {
        f"at_{low:g}": float(np.mean([run.value for run in second])),
        f"at_{high:g}": float(np.mean([run.value for run in first])),
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "seeds_that_rise": sum(rises),
    }


def direction(column: str, ours: dict[str, float]) -> dict[str, float | str]:
    """Beside the paper's Table 1: whether both go the same way from LOW to HIGH."""
    rows = {row["guidance_scale"]: row for row in published.TABLE_1}
    paper = rows[HIGH][column.removeprefix(DISJOINT)] - rows[LOW][column.removeprefix(DISJOINT)]
    sure = ours["low"] > 0 or ours["high"] < 0
    same = (paper > 0) == (ours["difference"] > 0)
    verdict = ("agrees" if same else "disagrees") if sure else "within the noise"
    return {"published": paper, "verdict": verdict} | ours


def claims(setting: Setting) -> list[Finding]:
    """What guidance does to captions, for judges that did and did not see the pictures."""
    found, counts, people = captioned(setting)
    sight = change(found, "cider", 0.0, 1.0)
    recalled = {p: change(found, f"{p}recall_at_1") for p in (ALL, DISJOINT)}
    price = change(found, "cider")
    table = {
        f"gamma_{scale:g}": {c: list(runs_interval(runs)) for c, runs in columns.items()}
        | counts[scale]
        for scale, columns in found.items()
    }
    above = "95% interval of the difference over seeds and pictures above zero"
    return [
        Finding(
            "seeds_sight", "captioners beat themselves fed zeros", above, sight["low"] > 0, sight
        ),
        Finding(
            "seeds_retrieval_judged",
            "guided captions (gamma 2 against 1) single out their picture for a judge that has "
            "seen the captioner's pictures",
            f"caption -> image R@1: {above}",
            recalled[ALL]["low"] > 0,
            recalled[ALL],
        ),
        Finding(
            "seeds_retrieval_disjoint",
            "and for one that has seen none of them",
            f"caption -> image R@1: {above}",
            recalled[DISJOINT]["low"] > 0,
            recalled[DISJOINT],
        ),
        Finding(
            "seeds_cider_falls",
            "agreement with the references is the price",
            "95% interval of the CIDEr difference over seeds and pictures below zero",
            price["high"] < 0,
            price,
        ),
        Finding(
            "directions",
            "every column of Table 1 from gamma 1 to 2, beside the paper's",
            "none: reported only",
            None,
            {
                column: direction(column, change(found, column))
                for column in COLUMNS
                if not column.startswith("own_")
            },
        ),
        Finding(
            "seeds_table",
            "every column at every scale: mean over seeds, low, high",
            "none: reported only",
            None,
            table | {"human": people},
        ),
    ]
