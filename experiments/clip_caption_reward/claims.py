"""The claims of CLIP reward (arXiv 2205.13115) on generated scenes, each beside its ablation.

A vague captioner (configs/guiding/scenes.py: half of its captions say nothing) is tuned by
reinforcement with rewards of a toy CLIP; where grammar is a reward, of one whose text tower also
learned to judge it. CLIP-S and R@1 are those of the plain one, as the paper measures with CLIP as
published. All captions are greedy, of pictures that no training saw. Bounds are the spec's or said
to be ours; all were set before any run, but that `grammar_restores` also asks for some repetition
to remove, which a first run lacked.

Letters: N pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capjax import config as configs
from capjax.data.scenes import Source
from capjax.evals.scene_captions import Pictures, means
from capjax.metrics import frontier
from capjax.metrics.bootstrap import mean_difference
from capjax.report.curves import Curve, Panel, draw
from capjax.reproduce import Finding, Setting, trained
from capjax.runs import Run, open_run
from capjax.train import train
from experiments.clip_caption_reward.grammar_accuracy import grammar_accuracy
from experiments.clip_caption_reward.recipe import judged_scenes, scenes

CAPTIONER = "configs/guiding/scenes.py"
JUDGE, REWARD = (f"configs/clip_caption_reward/{name}.py" for name in ("judge", "reward"))
PICTURES = 500
GUIDED = (1.0, 1.5, 2.0, 3.0, 4.0)  # guidance scales of the captioner before it is tuned
PLAIN, GRAMMATICAL = "size=small,grammar=0", "size=small"  # judges
TUNED = {  # a reward, and by which judge
    "clips": ("reward=clips", PLAIN),
    "clips_grammar": ("reward=clips_grammar", GRAMMATICAL),
    "cider": ("reward=cider", PLAIN),
    "shuffled": ("reward=clips,shuffled=True", PLAIN),
}
RECALLS = {"recall_at_1": "by the judge", "oracle_recall_at_1": "by an oracle"}
Measured = dict[str, np.ndarray]


@functools.cache
def judge(workdir: Path, arg: str) -> Run:
    """The toy CLIP with a head for grammar, which PLAIN leaves as it was drawn."""
    return trained(workdir, JUDGE, arg, "paper")


def source(section: dict[str, Any]) -> Source:
    """The source of a data section of scenes."""
    return Source(**{name: value for name, value in section.items() if name != "name"})


@functools.cache
def pictures(workdir: Path) -> Pictures:
    """N pictures that neither captioner nor judge has seen."""
    world = source(scenes("test", PICTURES))
    return Pictures([world[i] for i in range(PICTURES)], judge(workdir, PLAIN))


@functools.cache
def before(workdir: Path) -> Run:
    """The captioner by cross-entropy."""
    return trained(workdir, CAPTIONER, "", "mle")


@functools.cache
def after(workdir: Path, name: str) -> Run:
    """The captioner tuned by one of TUNED."""
    reward, by = TUNED[name]
    runs = f"captioner={before(workdir).directory},judge={judge(workdir, by).directory}"
    directory = workdir / f"reward-{name}"
    train(configs.load(f"{REWARD}:size=small,{reward},{runs}"), directory)
    return open_run(directory)


@functools.cache
def measured(workdir: Path, name: str) -> Measured:
    """What greedy captions score: "mle", or one of TUNED."""
    run = before(workdir) if name == "mle" else after(workdir, name)
    seen = pictures(workdir)
    return seen.measure(seen.captions(run))


def grammar(setting: Setting) -> list[Finding]:
    """The judge of grammar on captions and corruptions that it has not seen."""
    world = source(judged_scenes("test", PICTURES))
    captions = [world.captions(i)[0] for i in range(PICTURES)]
    found = grammar_accuracy(judge(setting.workdir, GRAMMATICAL), captions)
    blind = grammar_accuracy(judge(setting.workdir, PLAIN), captions)
    return [
        Finding(
            "grammar_judge",
            "a head on the text tower tells captions from corrupted ones",
            "accuracy on held-out captions and corruptions above 0.85",
            found["accuracy"] > 0.85,
            found,
        ),
        Finding(
            "ablation_judge_without_grammar_loss",
            "without the grammar loss the same head knows nothing",
            "accuracy at most 0.65 (ours; chance 0.5)",
            blind["accuracy"] <= 0.65,
            blind,
        ),
    ]


def judged(
    mle: Measured, clips: Measured, both: Measured, cider: Measured, shuffled: Measured
) -> list[Finding]:
    """The findings about five captioners' captions of the same pictures."""

    def gain(name: str, of: Measured = clips) -> Any:
        return mean_difference(of[name], mle[name])

    table = {
        name: means(own)
        for name, own in {
            "mle": mle,
            "clips": clips,
            "clips_grammar": both,
            "cider": cider,
            "shuffled": shuffled,
        }.items()
    }
    rates = {name: row["repeated_bigrams"] for name, row in table.items()}
    recall = {name: row["recall_at_1"] for name, row in table.items()}
    gains = {name: gain(name) for name in ("clip_s", "recall_at_1", "cider", "repeated_bigrams")}
    told = {f"{name}_gain": list(found[:3]) for name, found in gains.items()}
    whole = gains["clip_s"].value if gains["clip_s"].value > 0 else float("nan")
    kept, luck = (gain("clip_s", own).value / whole for own in (both, shuffled))
    return [
        Finding(
            "retrieval_rises",
            "CLIP-S as the reward makes captions that single out their picture, well beyond MLE",
            "R@1 at least twice that of MLE (ours), the intervals of the gains in R@1 and CLIP-S "
            "above 0",
            recall["clips"] >= 2 * recall["mle"]
            and gains["recall_at_1"].low > 0
            and gains["clip_s"].low > 0,
            told | {"table": table},
        ),
        Finding(
            "cider_falls",
            "agreement with the references is the price",
            "the interval of the difference in CIDEr below 0",
            gains["cider"].high < 0,
            {"mle": table["mle"]["cider"], "clips": table["clips"]["cider"]},
        ),
        Finding(
            "text_degenerates",
            "without the grammar reward captions repeat themselves",
            "the interval of the rise in the share of repeated bigrams above 0",
            gains["repeated_bigrams"].low > 0,
            {"repeated_bigrams": rates}
            | {"grammatical": {name: row["grammatical"] for name, row in table.items()}},
        ),
        Finding(
            "grammar_restores",
            "with the grammar reward they do not, and most of the gain in CLIP-S stays",
            "repeated bigrams at most half of those without it, of which there are some, and over "
            "80% of the gain in CLIP-S",
            rates["clips"] > 0 and rates["clips_grammar"] <= rates["clips"] / 2 and kept > 0.8,
            {"repeated_bigrams": rates, "share_of_gain": kept},
        ),
        Finding(
            "cider_as_the_reward",
            "the same machinery with CIDEr-D as the reward raises CIDEr instead",
            "the interval of the gain in CIDEr above 0 (ours)",
            gain("cider", cider).low > 0,
            {"mle": table["mle"]["cider"], "cider": table["cider"]["cider"]},
        ),
        Finding(
            "ablation_shuffled_rewards",
            "other pictures' rewards teach nothing",
            "at most a tenth of the gain in CLIP-S (ours)",
            luck <= 0.1,
            {"share_of_gain": luck, "recall_at_1": recall["shuffled"]},
        ),
    ]


def policies(setting: Setting) -> list[Finding]:
    """The captioners' captions beside each other."""
    names = ("mle", "clips", "clips_grammar", "cider", "shuffled")
    return judged(*(measured(setting.workdir, name) for name in names))


def frontiers(setting: Setting) -> list[Finding]:
    """Guidance of the captioner before it is tuned, and reinforcement's way, on one plot."""
    workdir, seen = setting.workdir, pictures(setting.workdir)
    guided = [seen.measure(seen.captions(before(workdir), scale)) for scale in GUIDED]
    rows = {
        "guidance": [
            {"guidance_scale": scale} | means(own)
            for scale, own in zip(GUIDED, guided, strict=True)
        ]
    }
    above = {}
    for name in ("clips", "clips_grammar"):
        run = after(workdir, name)
        half = open_run(run.directory, run.step // 2)
        rows[f"RL, {name}"] = [
            {"step": 0} | means(measured(workdir, "mle")),
            {"step": half.step} | means(seen.measure(seen.captions(half))),
            {"step": run.step} | means(measured(workdir, name)),
        ]
        above[name] = {
            recall: over_guidance(guided, measured(workdir, name), recall) for recall in RECALLS
        }
    path = workdir / "frontiers.png"
    panels = [Panel("cider", recall, title) for recall, title in RECALLS.items()]
    draw([path, path.with_suffix(".svg")], panels, [Curve(n, own) for n, own in rows.items()])
    return [
        Finding(
            "frontiers",
            "guidance and reinforcement trade CIDEr for R@1: both ways on one plot",
            "none: reported only, with how far reinforcement is above what guidance reaches at its "
            "CIDEr (99% intervals); drawn in the workdir as frontiers.png",
            None,
            rows | {"excess": above},
        )
    ]


def over_guidance(guided: Sequence[Measured], tuned: Measured, recall: str) -> dict[str, Any]:
    """How far captions are above the curve of the guided ones, in CIDEr and this recall."""
    curve = np.array([[own["cider"], own[recall]] for own in guided])
    found = frontier.excess(curve, np.array([tuned["cider"], tuned[recall]]))
    return {"verdict": frontier.verdict(found)} | found._asdict()


SCALES = {"small": (grammar, policies, frontiers)}
