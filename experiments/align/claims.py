"""The claims of ALIGN (arXiv 2102.05918) at small scale, each beside its ablation.

A tiny ALIGN (configs/align/shapes.py) learns coloured shapes from captions that say everything of
them, and is tested on pairs of colour and shape that it never saw: a caption must find its own
picture among 64, and a picture its caption. Bounds are those of the specification, set before any
run; the data of `noise_and_scale` is small, so that more of it can help.

Letters: N pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from capjax import reproduce
from capjax.config import instantiate
from capjax.evals.encoder import Encoder
from capjax.metrics.bootstrap import mean_difference, mean_interval
from capjax.metrics.distractors import bag_recall, random_bags
from capjax.reproduce import Finding, Setting
from capjax.runs import Run

CONFIG = "configs/align/shapes.py"
CANDIDATES, BAGS = 64, 15
CHANCE = 1 / CANDIDATES
PAIRS = 500  # of the clean set in `noise_and_scale`
UNSEEN, SEEN = "test", "val"  # splits: pairs that were held out, other pictures of the rest


def trained(workdir: Path, **arguments: object) -> Run:
    """The run of the config with these arguments, trained or found finished in `workdir`."""
    arg = ",".join(f"{name}={value}" for name, value in arguments.items())
    return reproduce.trained(workdir, CONFIG, arg, "clean")


def recall(run: Run, split: str = UNSEEN) -> np.ndarray:
    """[N]: R@1 of each picture among 64, mean of both directions. Only its own caption is right."""
    data = run.config.evals.retrieval.data.to_dict()
    data |= {"split": split, "size": CANDIDATES * BAGS, "seed": 1}
    source = instantiate(data, "Source", where="the claim's data")
    records = [source[i] for i in range(len(source))]
    encoder = Encoder(run.model, run.params, run.tokenizer)
    images = encoder.images(np.stack([record["image"] for record in records]))
    texts = encoder.texts([record["captions"][0] for record in records])
    bags = random_bags(len(records), CANDIDATES)
    directions = (bag_recall(texts, images, bags), bag_recall(images, texts, bags))
    return np.mean([np.asarray(measure.per_image) for measure in directions], axis=0)


def measured(run: Run, split: str = UNSEEN) -> dict[str, float]:
    """R@1 among 64 with its interval over pictures."""
    found = mean_interval(recall(run, split))
    return {"recall_at_1": found.value, "low": found.low, "high": found.high}


def sigma(run: Run) -> float:
    """The temperature that divides the cosines, as the loss sees it."""
    scale = float(np.exp(run.params["logit_scale"]))
    return 1 / min(scale, run.config.task.max_scale or scale)


def pairs(setting: Setting) -> list[Finding]:
    """Captions and pictures of unseen pairs find each other, if captions were of their pictures."""
    found = measured(trained(setting.workdir))
    shuffled = measured(trained(setting.workdir, noise=1.0))
    return [
        Finding(
            "recall_among_64",
            "captions and pictures of pairs that training never showed find each other",
            f"R@1 among 64 above 10 times chance ({10 * CHANCE:.3f})",
            found["recall_at_1"] > 10 * CHANCE,
            found,
        ),
        Finding(
            "ablation_shuffled_pairs",
            "trained on the captions of other pictures, the same model stays at chance",
            f"R@1 among 64 below 2 times chance ({2 * CHANCE:.3f})",
            shuffled["recall_at_1"] < 2 * CHANCE,
            shuffled,
        ),
    ]


def noise_and_scale(setting: Setting) -> list[Finding]:
    """Four times as many pairs, half of them wrong, are worth more than few that are right."""
    runs = {
        "clean": trained(setting.workdir, pairs=PAIRS),
        "noisy": trained(setting.workdir, pairs=PAIRS, noise=0.5),
        "four_times_noisy": trained(setting.workdir, pairs=4 * PAIRS, noise=0.5),
    }
    unseen = {name: recall(run) for name, run in runs.items()}
    seen = {name: float(recall(run, SEEN).mean()) for name, run in runs.items()}
    values = {name: float(found.mean()) for name, found in unseen.items()}

    def finding(name: str, claim: str, more: str, less: str) -> Finding:
        difference = mean_difference(unseen[more], unseen[less])
        return Finding(
            name,
            claim,
            f"R@1 among 64 of {more} above that of {less}, at equal steps",
            difference.value > 0,
            {
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
                more: values[more],
                less: values[less],
                "of_seen_pairs": {more: seen[more], less: seen[less]},
            },
        )

    return [
        finding(
            "scale_makes_up_for_noise",
            f"{4 * PAIRS} pairs of which half are wrong teach more than {PAIRS} right ones",
            "four_times_noisy",
            "clean",
        ),
        finding(
            "ablation_noise_without_scale",
            f"{PAIRS} pairs of which half are wrong teach less than {PAIRS} right ones",
            "clean",
            "noisy",
        ),
    ]


def temperature(setting: Setting) -> list[Finding]:
    """The temperature falls by itself, and matters."""
    learned, frozen = trained(setting.workdir), trained(setting.workdir, max_scale=1.0)
    found, fixed = recall(learned), recall(frozen)
    difference = mean_difference(found, fixed)
    return [
        Finding(
            "sigma_falls",
            "the temperature, which starts at 1, is learned to be small",
            "sigma below 0.3 after training",
            sigma(learned) < 0.3,
            {"sigma": sigma(learned)},
        ),
        Finding(
            "ablation_sigma_stays",
            "kept at 1, the temperature costs recall",
            "R@1 among 64 lower than with the learned one",
            difference.value > 0,
            {
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
                "learned": float(found.mean()),
                "kept": float(fixed.mean()),
                "sigma": sigma(frozen),
            },
        ),
    ]


SCALES = {"small": (pairs, noise_and_scale, temperature)}
