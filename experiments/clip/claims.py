"""The claims of CLIP (arXiv 2103.00020) at small scale, each beside its ablation.

A tiny CLIP learns 36 of 48 pairs of colour and shape (`shapes`) and must name pictures of the other
twelve among all 48. Trained on the captions of other pictures it must stay near chance, 1 in 48.
On real photographs (Flickr8k) a small CLIP must retrieve better than the same trained on captions
of other photographs.
"""

from __future__ import annotations

import numpy as np

from capjax import config as configs
from capjax.evals.encoder import Encoder
from capjax.evals.retrieval import Evaluator as Retrieval
from capjax.evals.zero_shot import Evaluator
from capjax.metrics.bootstrap import mean_interval, measure_difference, measure_interval
from capjax.metrics.retrieval import ranks
from capjax.reproduce import Finding, Setting, trained
from capjax.runs import Run, open_run
from capjax.train import train
from experiments.clip.shapes import CLASSES, Source

CONFIG = "configs/clip/shapes.py"
PHOTOGRAPHS = "configs/clip/flickr8k.py"
CANDIDATES = 256


def accuracy(run: Run, name: str) -> dict[str, float]:
    """Zero-shot accuracy of one of the config's evaluators, with its interval."""
    section = run.config.evals[name].to_dict()
    evaluator = Evaluator(
        model=run.model,
        tokenizer=run.tokenizer,
        **{key: value for key, value in section.items() if key not in ("type", "every")},
    )
    found = measure_interval(evaluator.measures(run.params)["zero_shot_top_1"])
    return {"accuracy": found.value, "low": found.low, "high": found.high}


def recall(run: Run) -> dict[str, float]:
    """Caption -> picture R@1 among 256 pictures; any picture of the caption's class is right."""
    source = Source(split="val", size=CANDIDATES, seed=1)
    records = [source[i] for i in range(CANDIDATES)]
    encoder = Encoder(run.model, run.params, run.tokenizer)
    images = encoder.images(np.stack([record["image"] for record in records]))
    texts = encoder.texts([record["captions"][0] for record in records])
    labels = np.array([record["label"] for record in records])
    same = [np.flatnonzero(labels == label) for label in labels]
    found = mean_interval((ranks(texts, images, same) == 1).astype(float))
    return {"recall_at_1": found.value, "low": found.low, "high": found.high}


def zero_shot(setting: Setting) -> list[Finding]:
    """Unseen pairs are named, and only because captions belong to their pictures."""
    run = trained(setting.workdir, CONFIG, "", "paper")
    unseen, seen = accuracy(run, "unseen_pairs"), accuracy(run, "seen_pairs")
    within = recall(run)
    ablated = trained(setting.workdir, CONFIG, "permuted=True", "paper")
    permuted, permuted_seen = (accuracy(ablated, name) for name in ("unseen_pairs", "seen_pairs"))
    return [
        Finding(
            "zero_shot_unseen_pairs",
            "pictures of pairs that training never showed are named among all 48",
            f"accuracy above 0.40 (chance {1 / len(CLASSES):.3f})",
            unseen["accuracy"] > 0.40,
            unseen | {"seen_pairs": seen["accuracy"]},
        ),
        Finding(
            "recall_within_256",
            "a caption finds a picture that fits it among 256",
            "R@1 above 0.60",
            within["recall_at_1"] > 0.60,
            within,
        ),
        Finding(
            "ablation_permuted_captions",
            "trained on the captions of other pictures, the same model knows nothing",
            "accuracy below 0.06 on unseen and on seen pairs",
            max(permuted["accuracy"], permuted_seen["accuracy"]) < 0.06,
            permuted | {"seen_pairs": permuted_seen["accuracy"]},
        ),
    ]


def photographs(setting: Setting) -> list[Finding]:
    """On 1,000 photographs of Flickr8k's dev split, both directions, against permuted captions."""
    measures = {}
    for name, permuted in (("paired", False), ("permuted", True)):
        config = configs.load(f"{PHOTOGRAPHS}:data={setting.data},permuted={permuted}")
        directory = setting.workdir / f"flickr8k-{name}"
        train(config, directory)
        run = open_run(directory)
        section = config.evals.retrieval.to_dict()
        evaluator = Retrieval(model=run.model, tokenizer=run.tokenizer, data=section["data"])
        measures[name] = evaluator.measures(run.params)
    findings = []
    for direction in ("image_to_text", "text_to_image"):
        key = f"{direction}_recall_at_10"
        paired, permuted = (measures[name][key] for name in ("paired", "permuted"))
        difference = measure_difference(paired, permuted)
        values = {"difference": difference.value, "low": difference.low, "high": difference.high}
        for name, found in measures.items():
            for k in (1, 5, 10):
                interval = measure_interval(found[f"{direction}_recall_at_{k}"])
                values[f"{name}_recall_at_{k}"] = [interval.value, interval.low, interval.high]
            values[f"{name}_median_rank"] = found[f"{direction}_median_rank"].value
        findings.append(
            Finding(
                f"flickr8k_{direction}",
                "pairs of photographs and captions teach retrieval, permuted ones do not",
                "R@10 higher than with permuted captions, the interval of the difference above 0",
                difference.low > 0,
                values,
            )
        )
    return findings


SCALES = {"small": (zero_shot,), "flickr8k": (photographs,)}
