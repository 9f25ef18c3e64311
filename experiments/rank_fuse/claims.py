"""The claims of ranking and fusing (arXiv 2306.11593) at small scale, each beside its ablation.

Three tiny captioners of the small world (`worlds`), one of which errs, write through the pipeline
of configs/curate/rank_fuse.py; a tiny BLIP ranks by its probability of a match, a script fuses, and
a BLIP of another seed and other pictures judges. Bounds are the spec's; those that it does not give
are said to be ours.

Letters: N pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capjax.curate import local
from capjax.curate.calls import call_batch
from capjax.curate.finished import Finished
from capjax.curate.pipeline import load
from capjax.curate.stages.matching import MatchScore
from capjax.curate.stages.texts import draw
from capjax.reproduce import Finding, Setting, trained
from experiments.rank_fuse.measures import best_two, difference, facts_of, joint, varied
from experiments.rank_fuse.script import fuse
from experiments.rank_fuse.worlds import Source

CAPTIONER, MATCHER = "configs/rank_fuse/captioner.py", "configs/rank_fuse/matcher.py"
PIPELINE = "configs/curate/rank_fuse.py"
CAPTIONERS = ("colours", "shapes", "noisy")
NOISY = CAPTIONERS.index("noisy")
TEST = 400
DIVERSE = 100  # captions of each system whose likeness to each other is measured
WORLD = Source("test", TEST)


def scorer(workdir: Path, seed: int) -> Path:
    """The run of a matching model."""
    return trained(workdir, MATCHER, f"seed={seed}", "paper").directory


@functools.cache
def curated(workdir: Path) -> tuple[dict[str, Any], ...]:
    """The pipeline's rows, one a test picture."""
    names = [
        str(trained(workdir, CAPTIONER, f"size=small,captions={kind}", "paper").directory)
        for kind in CAPTIONERS
    ]
    made = load(
        f"{PIPELINE}:captioners={'+'.join(names)},sample={names[NOISY]},"
        f"scorer={scorer(workdir, 0)},judge={scorer(workdir, 1)},model=script,"
        "num_beams=1,batch_size=64"
    )
    options = local.Options(processes=1, threads=4)
    directory = workdir / "curated"
    local.run(made, WORLD, directory, options=options, progress=False)
    return tuple(Finished(directory).rows())


def fusing(setting: Setting) -> list[Finding]:
    """The best two captions together say more that is true than any captioner, and err no more."""
    rows = curated(setting.workdir)
    single = {
        name: facts_of([row[f"caption_{i}"] for row in rows], WORLD)
        for i, name in enumerate(CAPTIONERS)
    }
    fused = facts_of([row["fused"] for row in rows], WORLD)
    all_three = facts_of([fuse(row["candidates"]) for row in rows], WORLD)
    best = max(single, key=lambda name: single[name].true.mean())
    ratio = float(fused.true.mean() / single[best].true.mean())
    both = [facts_of([row[name] for row in rows], WORLD).rates for name in ("first", "second")]
    own, worse = float(fused.rates.mean()), float(np.maximum(*both).mean())
    told = {n: {"true": float(f.true.mean()), "false_rate": f.rate} for n, f in single.items()}
    told["fused"] = {"true": float(fused.true.mean()), "false_rate": fused.rate}
    return [
        Finding(
            "fused_covers_more",
            "the best two captions, fused, tell more true facts than the best single captioner",
            "at least 25% more, mean of the pictures",
            ratio >= 1.25,
            {
                "ratio": ratio,
                "best_single": best,
                "facts_a_picture": float(np.mean([len(WORLD.truth(i)) for i in range(TEST)])),
            }
            | told,
        ),
        Finding(
            "fused_errs_no_more",
            "the fused caption's share of false facts is not above that of the worse of the two",
            "mean of the pictures not above",
            own <= worse,
            {"fused": own, "worse_of_the_two": worse},
        ),
        Finding(
            "ablation_all_three",
            "fusing all three captions, the noisy one among them, adds false facts",
            "share of false facts above that of the best two fused",
            all_three.rate > fused.rate,
            {"all_three": all_three.rate, "best_two": fused.rate}
            | {"true_all_three": float(all_three.true.mean())},
        ),
    ]


def ranking(setting: Setting) -> list[Finding]:
    """The score finds the captions that fit; by chance, and beside other pictures, it does not."""
    rows = curated(setting.workdir)
    candidates = [row["candidates"] for row in rows]
    orders = {
        "score": [row["scores"] for row in rows],
        "chance": [[draw(k, i) for k in range(len(c))] for i, c in enumerate(candidates)],
        "permuted": permuted([row["scores"] for row in rows]),
        "same_captioner": shifted([row["scores"] for row in rows]),
        "other_picture": beside_another(setting.workdir, candidates),
    }
    chosen = {
        name: [best_two(*both) for both in zip(candidates, scores, strict=True)]
        for name, scores in orders.items()
    }
    rate = {name: joint(groups, WORLD).rate for name, groups in chosen.items()}
    points = {name: rate["chance"] - value for name, value in rate.items()}
    noisy = {name: is_noisy_chosen(rows, groups) for name, groups in chosen.items()}
    left = "less than half of it is left"
    return [
        Finding(
            "ranking_finds_the_true_ones",
            "the two captions that score best err less than two drawn by chance",
            "share of false facts at least 10 points lower",
            points["score"] >= 0.10,
            {"points": points["score"], "by_score": rate["score"], "by_chance": rate["chance"]},
        ),
        Finding(
            "noisy_is_rarely_chosen",
            "the noisy captioner's caption is seldom among the best two",
            "of fewer than 20% of the pictures",
            noisy["score"] < 0.20,
            {"chosen": noisy["score"], "by_chance": noisy["chance"]},
        ),
        Finding(
            "ablation_permuted_scores",
            "with all scores permuted across pictures the advantage is gone",
            f"{left} (ours: the spec says that it vanishes)",
            points["permuted"] < points["score"] / 2,
            {"points_left": points["permuted"], "noisy_chosen": noisy["permuted"]},
        ),
        Finding(
            "who_wrote_it",
            "what is left if a caption has the score that its captioner got for the next picture",
            "none: reported only; it is what knowing the captioners alone is worth",
            None,
            {"points_left": points["same_captioner"], "noisy_chosen": noisy["same_captioner"]},
        ),
        Finding(
            "ablation_beside_another_picture",
            "with the same captions' scores beside another picture the advantage is gone",
            f"{left} (ours)",
            points["other_picture"] < points["score"] / 2,
            {"points_left": points["other_picture"], "noisy_chosen": noisy["other_picture"]},
        ),
    ]


def permuted(scores: Sequence[list[float]], seed: int = 0) -> list[list[float]]:
    """All scores in another order, each picture with as many as before."""
    order = iter(np.random.default_rng(seed).permutation([s for own in scores for s in own]))
    return [[float(next(order)) for _ in own] for own in scores]


def shifted(scores: Sequence[list[float]]) -> list[list[float]]:
    """For every picture the scores of the next one that has as many, captioner by captioner."""
    found = []
    for i, own in enumerate(scores):
        others = (scores[(i + k) % len(scores)] for k in range(1, len(scores) + 1))
        found.append(next(other for other in others if len(other) == len(own)))
    return found


def beside_another(workdir: Path, candidates: Sequence[list[str]]) -> list[list[float]]:
    """The scorer's scores of each picture's captions beside the picture that follows it."""
    stage = MatchScore(scorer(workdir, 0), "texts", several=True, output="score")
    stage.start()
    rows = [
        {"key": WORLD.key(i), "image": WORLD[(i + 1) % TEST]["image"], "texts": texts}
        for i, texts in enumerate(candidates)
    ]
    return [called.results[0]["score"] for called in call_batch(stage, rows)]


def is_noisy_chosen(rows: Sequence[dict[str, Any]], chosen: Sequence[list[str]]) -> float:
    """The share of pictures of which the noisy captioner's own caption is among the chosen ones:
    a caption that another one has written, too, is no mistake of its."""
    found = []
    for row, best in zip(rows, chosen, strict=True):
        texts = [" ".join(row[f"caption_{i}"].split()) for i in range(len(CAPTIONERS))]
        own = texts.pop(NOISY)
        found.append(own in best and own not in texts)
    return float(np.mean(found))


def judged(setting: Setting) -> list[Finding]:
    """A scorer that ranked nothing prefers the fused captions, too; and how varied they are."""
    rows = curated(setting.workdir)
    fused = np.array([row["fused_judged"] for row in rows])
    alone = {
        name: np.array([_judgement(row, f"caption_{i}") for row in rows])
        for i, name in enumerate(CAPTIONERS)
    }
    best = max(alone, key=lambda name: alone[name].mean())
    over = difference(fused, alone[best])
    systems = {f"caption_{i}": name for i, name in enumerate(CAPTIONERS)} | {"fused": "fused"}
    return [
        Finding(
            "another_scorer_agrees",
            "a BLIP of another seed and other pictures scores fused captions above the best single "
            "captioner's",
            "the interval of the difference above 0",
            over["low"] > 0,
            over
            | {"best_single": best, "fused": float(fused.mean())}
            | {name: float(values.mean()) for name, values in alone.items()},
        ),
        Finding(
            "diversity",
            f"likeness of {DIVERSE} captions of a system to each other, and its distinct n-grams",
            "none: reported only, since a closed grammar bounds both",
            None,
            varied({name: [row[f] for row in rows[:DIVERSE]] for f, name in systems.items()}),
        ),
    ]


def _judgement(row: dict[str, Any], name: str) -> float:
    """The judge's score of a captioner's caption; 0 for an empty one."""
    both = zip(row["candidates"], row["candidates_judged"], strict=True)
    return dict(both).get(" ".join(row[name].split()), 0.0)


SCALES = {"small": (fusing, ranking, judged)}
