"""The claim about language-model guidance (guiding, arXiv 2307.16686, section 3.2), and ablations.

A tiny bottleneck CoCa learns the texts of `tags`: nine in ten captions are tags, one in ten is a
sentence. Language models with its vocabulary learn the sentences alone, or the tags alone. Decoding
with  log q(x) + alpha log p(x|picture) - beta log p(x)  and alpha = beta = 1 is to change how the
captioner speaks, and not what it sees.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from capjax import config as configs
from capjax.decode.captioner import Captioner
from capjax.metrics import evaluate
from capjax.reproduce import Finding, Setting, trained
from capjax.runs import Run, open_run
from capjax.train import train
from experiments.guiding.language_guidance import Guide
from experiments.guiding.lines import check_vocabularies
from experiments.guiding.tags import Source, is_named

CAPTIONER = "configs/guiding/tags.py"
LANGUAGE_MODEL = "configs/guiding/language_model.py"
PICTURES = 300
RISE = 2.0  # of CIDEr, at least
FALL = 0.05  # of the attribute accuracy, at most


class World:
    """The captioner, trained or found in `workdir`, and the pictures that it is tried on.

    steps: of its training; 0: those of its config. The references are sentences.
    """

    def __init__(self, workdir: Path, steps: int = 0):
        self.workdir, self.steps = workdir, steps
        self.run = trained(workdir, CAPTIONER, f"steps={steps}" if steps else "", "paper")
        self.captioner = Captioner(self.run.model, self.run.params, self.run.tokenizer)
        source = Source("sentences", "val", PICTURES)
        self.records = [source[i] for i in range(len(source))]
        images = np.stack([record["image"] for record in self.records])
        self.context = jax.device_get(self.captioner.encode(images).context)

    def language_model(self, style: str) -> Run:
        """The language model of one style, trained or found."""
        directory = self.workdir / f"language_model-{style}"
        arg = f"captioner={self.run.directory},style={style}"
        if self.steps:
            arg += f",steps={self.steps}"
        train(configs.load(f"{LANGUAGE_MODEL}:{arg}"), directory)
        run = open_run(directory)
        check_vocabularies(self.run.tokenizer, run.tokenizer)
        return run

    def captions(self, scale: float = 1.0, told: Guide | None = None) -> list[str]:
        """One greedy caption a picture."""
        return [c.text for c in self.captioner.write(self.context, scale, companion=told)]

    def measure(self, captions: list[str]) -> dict[str, float]:
        """CIDEr against sentences, the share that names colour and kind rightly, that of tags."""
        keys = [record["key"] for record in self.records]
        references = {record["key"]: record["captions"] for record in self.records}
        scores = evaluate(dict(zip(keys, captions, strict=True)), references, metrics=("cider",))
        right = [is_named(c, r["graph"]) for c, r in zip(captions, self.records, strict=True)]
        return {
            "cider": scores.metrics["cider"],
            "attribute_accuracy": float(np.mean(right)),
            "tags": float(np.mean([caption.startswith("photo") for caption in captions])),
        }

    def guided(self, model: Run, alpha: float = 1.0, beta: float = 1.0) -> dict[str, float]:
        """What is measured with a language model that has its say."""
        return self.measure(
            self.captions(told=Guide(model.model, model.params, alpha=alpha, beta=beta))
        )


def holds(plain: dict[str, float], guided: dict[str, float]) -> bool:
    """The spec's claim: CIDEr more than doubles, attributes are named as well as before."""
    return (
        guided["cider"] > RISE * plain["cider"]
        and guided["attribute_accuracy"] >= plain["attribute_accuracy"] - FALL
    )


def claims(setting: Setting) -> list[Finding]:
    """The claim, what takes it away, and what guidance without a language model does."""
    world = World(setting.workdir)
    plain = world.measure(world.captions())
    sentences, tags = (world.language_model(style) for style in ("sentences", "tags"))
    guided = world.guided(sentences)
    findings = [
        Finding(
            "language_model_style",
            "a language model of sentences, alpha = beta = 1, makes a captioner of tags speak in "
            "sentences about what it sees",
            f"CIDEr against sentences above {RISE:g} times that without it, and the attribute "
            f"accuracy at most {100 * FALL:g} points lower",
            holds(plain, guided),
            _flat(plain=plain, guided=guided),
        )
    ]
    for name, what, model, alpha, beta in (
        ("language_model_of_tags", "the language model learned the tags", tags, 1.0, 1.0),
        (
            "language_model_alone",
            "the captioner has no say (alpha = beta = 0)",
            sentences,
            0.0,
            0.0,
        ),
    ):
        found = world.guided(model, alpha, beta)
        findings.append(
            Finding(
                f"ablation_{name}",
                f"the claim fails when {what}",
                "CIDEr and attribute accuracy do not both meet the bounds above",
                not holds(plain, found),
                _flat(plain=plain, guided=found),
            )
        )
    without = world.guided(sentences, 1.0, 0.0)
    findings.append(
        Finding(
            "control_without_prior",
            "the same with beta = 0: the captioner's own p(x) is not taken away",
            "none: reported only",
            None,
            {"meets_the_claim": holds(plain, without)} | _flat(plain=plain, guided=without),
        )
    )
    free = {f"gamma_{scale:g}": world.measure(world.captions(scale)) for scale in (1.5, 2.0, 3.0)}
    findings.append(
        Finding(
            "control_classifier_free",
            "guidance without a language model, for comparison",
            "none: reported only",
            None,
            _flat(**free),
        )
    )
    return findings


def _flat(**measured: dict[str, float]) -> dict[str, float]:
    return {
        f"{name}_{which}": v for which, values in measured.items() for name, v in values.items()
    }
