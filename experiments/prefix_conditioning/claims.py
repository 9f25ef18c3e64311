"""The claims of prefix conditioning (arXiv 2206.01125) at small scale, each beside its ablation.

A tiny CLIP learns class names of flat shapes and captions of textured ones (`worlds`), with and
without prefixes, from three seeds. Bounds are those set before any run.

Letters: S seeds, N pictures, B sentences, E embedding width.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from capjax import reproduce
from capjax.evals.zero_shot import Evaluator
from capjax.metrics.bootstrap import mean_difference
from capjax.metrics.linear_probe import fit
from capjax.reproduce import Finding, Setting
from capjax.runs import Run, make_task
from capjax.train_step import rng_for
from experiments.prefix_conditioning import diagnostics
from experiments.prefix_conditioning.worlds import CLASSES, CONTEXTS

CONFIG = "configs/prefix_conditioning/shapes.py"
SEEDS = (0, 1, 2)
PREFIXES = ("cap", "cls")
SENTENCES = diagnostics.about(CLASSES, CONTEXTS)
GAIN = 0.03  # of zero-shot accuracy, over the same training without prefixes
COSINE = 0.98
PENALTY = 1e-3  # of the probe: light, so that it finds what there is to find


def arguments(seed: int, prefix: bool) -> str:
    """What a run's config is asked for."""
    return f"seed={seed},prefix={prefix}"


def trained(workdir: Path, seed: int, prefix: bool = True) -> Run:
    """The run, trained or found finished in `workdir`."""
    return reproduce.trained(workdir, CONFIG, arguments(seed, prefix), "paper")


def hits(run: Run, evaluator: str, prefix: str) -> np.ndarray:
    """[N]: 1 where zero-shot classification under a prefix ("": none) names the picture."""
    section = run.config.evals[evaluator].to_dict()
    zero_shot = Evaluator(
        model=diagnostics.under(run.model, prefix),
        tokenizer=run.tokenizer,
        **{key: value for key, value in section.items() if key not in ("type", "every")},
    )
    return np.asarray(zero_shot.measures(run.params)["zero_shot_top_1"].per_image)


def features(run: Run, prefix: str, params=None) -> np.ndarray:
    """[B,E] of the fixed sentences, under a prefix."""
    params = run.params if params is None else params
    return diagnostics.text_features(run.model, params, run.tokenizer, SENTENCES, prefix)


def zero_shot(setting: Setting) -> list[Finding]:
    """(a) Prompts that begin like captions name pictures of a style that no source shows."""
    told = [trained(setting.workdir, seed) for seed in SEEDS]
    plain = [trained(setting.workdir, seed, prefix=False) for seed in SEEDS]
    findings = []
    for evaluator in ("third_style", "cap_style"):
        right = {
            "cap": np.stack([hits(run, evaluator, "cap") for run in told]),
            "cls": np.stack([hits(run, evaluator, "cls") for run in told]),
            "none": np.stack([hits(run, evaluator, "") for run in plain]),
        }  # [S,N] each
        accuracy = {name: values.mean(1).tolist() for name, values in right.items()}
        over_none, over_cls = (gain(right["cap"], right[other]) for other in ("none", "cls"))
        required = evaluator == "third_style"
        findings += [
            Finding(
                f"{evaluator}_over_no_prefix",
                "tested with the captions' prefix, the model names more pictures than one trained "
                "without prefixes",
                f"accuracy higher by at least {GAIN}, mean of {len(SEEDS)} seeds"
                if required
                else "none: reported only",
                over_none["gain"] >= GAIN if required else None,
                over_none | {"with_cap": accuracy["cap"], "without": accuracy["none"]},
            ),
            Finding(
                f"{evaluator}_over_class_prefix",
                "the captions' prefix names more pictures than the class names' prefix, in one "
                "model",
                f"accuracy higher, mean of {len(SEEDS)} seeds"
                if required
                else "none: reported only",
                over_cls["gain"] > 0 if required else None,
                over_cls | {"with_cap": accuracy["cap"], "with_cls": accuracy["cls"]},
            ),
        ]
    return findings


def gain(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Mean difference of [S,N], and its interval over pictures; seeds are taken as they are."""
    found = mean_difference(first.mean(0), second.mean(0))
    return {"gain": found.value, "low": found.low, "high": found.high}


def apart(setting: Setting) -> list[Finding]:
    """(b) The two prefixes give a sentence two features, unless they are one vector."""
    learned, untrained, tied = [], [], []
    for seed in SEEDS:
        run = trained(setting.workdir, seed)
        tower = run.params["text_tower"]
        one = run.params | {"text_tower": tower | {"prefix_cls": tower["prefix_cap"]}}
        first = jax.jit(make_task(run.config, run.model).init)(rng_for(seed, "init"))
        for found, params in ((learned, run.params), (untrained, first), (tied, one)):
            both = [features(run, prefix, params) for prefix in PREFIXES]
            found.append(diagnostics.cosines(*both))
    mean = [float(values.mean()) for values in learned]
    error = float(max(np.abs(values - 1).max() for values in tied))
    return [
        Finding(
            "cosine_between_prefixes",
            "after training, a sentence has different features under the two prefixes",
            f"cosine below {COSINE} in every seed, mean of {len(SENTENCES)} sentences",
            max(mean) < COSINE,
            {
                "cosine": mean,
                "largest": [float(values.max()) for values in learned],
                "before_training": [float(values.mean()) for values in untrained],
            },
        ),
        Finding(
            "ablation_tied_prefixes",
            "with one vector for both prefixes, the features are the same",
            "cosine 1 for every sentence, to 1e-6",
            error < 1e-6,
            {"largest_difference_from_1": error},
        ),
    ]


def source_probe(setting: Setting) -> list[Finding]:
    """(c) Features tell the source of a sentence where it has the source's own prefix, only there.

    Half of the sentences about each class, drawn at random, are said to come from captions and the
    rest from class names: what a probe can read off a feature is its prefix, and nothing else.
    """
    chance, count = 0.5, len(SENTENCES) // 2
    most = chance + 3 * (chance * (1 - chance) / count) ** 0.5
    own, one = [], []
    for seed in SEEDS:
        run = trained(setting.workdir, seed)
        cap, cls = (features(run, prefix) for prefix in PREFIXES)
        sources = said_by(seed)
        own.append(probe_accuracy(np.where(sources[:, None] == 1, cls, cap), sources))
        one.append(probe_accuracy(cap, sources))
    return [
        Finding(
            "probe_with_own_prefixes",
            "a linear probe on text features tells which prefix was used",
            "accuracy above 0.9 in every seed, on sentences that it has not learned from",
            min(own) > 0.9,
            {"accuracy": own},
        ),
        Finding(
            "ablation_probe_with_one_prefix",
            "with one prefix for all sentences, the probe cannot tell the source",
            f"accuracy, mean of {len(SEEDS)} seeds, below {most:.3f} "
            f"(chance and 3 sigma of {count} sentences)",
            float(np.mean(one)) < most,
            {"accuracy": one},
        ),
    ]


def said_by(seed: int) -> np.ndarray:
    """[B]: the number of each sentence's source, half of a class's sentences each."""
    rng, count = np.random.default_rng(seed), len(CONTEXTS)
    return np.concatenate([rng.permutation(count) % 2 for _ in CLASSES])


def probe_accuracy(texts: np.ndarray, sources: np.ndarray) -> float:
    """Of a probe that learns from half of the sentences [B,E], on the other half."""
    order = np.random.default_rng(0).permutation(len(texts))
    learn, test = np.split(order, 2)
    probe = fit(texts[learn], sources[learn], 2, PENALTY)
    return float(np.mean(probe.scores(texts[test]).argmax(1) == sources[test]))


def context(setting: Setting) -> list[Finding]:
    """(d) Under the captions' prefix a text is all of its words, under the other the class name."""
    variance: dict[str, list[float]] = {prefix: [] for prefix in PREFIXES}
    attention: dict[str, list[float]] = {prefix: [] for prefix in PREFIXES}
    on_name: dict[str, list[float]] = {prefix: [] for prefix in PREFIXES}
    for seed in SEEDS:
        run = trained(setting.workdir, seed)
        for prefix in PREFIXES:
            spread = diagnostics.within_class_variance(features(run, prefix), len(CLASSES))
            looked = diagnostics.attention_to_context(
                run.model, run.params, run.tokenizer, CLASSES, CONTEXTS, prefix
            )
            variance[prefix].append(spread)
            attention[prefix].append(looked["context"])
            on_name[prefix].append(looked["name"])
    higher = f"cap above cls, mean of {len(SEEDS)} seeds"
    return [
        Finding(
            "within_class_variance",
            "features of one class in varied contexts spread more under the captions' prefix",
            higher,
            float(np.mean(variance["cap"])) > float(np.mean(variance["cls"])),
            variance,
        ),
        Finding(
            "attention_to_context",
            "END-OF-TEXT attends more to words besides the class name under the captions' prefix",
            higher + ", share of the last layer's attention",
            float(np.mean(attention["cap"])) > float(np.mean(attention["cls"])),
            attention | {f"on_name_{prefix}": values for prefix, values in on_name.items()},
        ),
    ]


SCALES = {"small": (zero_shot, apart, source_probe, context)}
