"""The claims of CapsFusion (arXiv 2310.20550) at small scale, each beside its ablation.

A tiny language model learns from a script's fusions of other scenes to fuse (`triples`), and then
fuses the small world's texts through the pipeline of configs/curate/capsfusion.py; on each kind of
captions a tiny captioner is trained. Bounds are the spec's, set before any run; those that it does
not give are said to be ours, and were set before any run too.

Letters: N records, T test pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capjax import config as configs
from capjax.curate import local
from capjax.curate.calls import gather
from capjax.curate.finished import Finished
from capjax.curate.language.decoder import Decoder
from capjax.curate.pipeline import load
from capjax.curate.stages.facts import compare
from capjax.curate.workers import Tally
from capjax.decode.captioner import Captioner
from capjax.metrics import References, evaluate
from capjax.metrics.bootstrap import mean_difference, mean_interval
from capjax.reproduce import Finding, Setting, trained
from capjax.runs import open_run
from capjax.train import train
from experiments.capsfusion.pipeline import Bare, first_sentence, fuse
from experiments.capsfusion.script import entity_retention
from experiments.capsfusion.worlds import FACTS, NAMES, Source

FUSER, CAPTIONER = "configs/capsfusion/fuser.py", "configs/capsfusion/captioner.py"
PIPELINE = "configs/curate/capsfusion.py"
SCALES_OF_DATA = (400, 1600, 6400)  # pairs
RIVALS = ("alt_text", "synthetic", "rewritten", "mixed")  # of the fused captions
TEST = 320
ABLATED = 200  # records that are fused with one of their texts gone
SEEN = ("colour", "background", "place")  # kinds of facts that synthetic captions tell
CHANCE = 1 / len(NAMES)


@functools.cache
def student(workdir: Path) -> Path:
    """The run of the distilled fuser."""
    return trained(workdir, FUSER, "size=small", "paper").directory


@functools.cache
def curated(workdir: Path) -> Path:
    """The folder with all texts of the largest scale, fused by the student through the engine."""
    directory = workdir / "curated"
    made = load(f"{PIPELINE}:student={student(workdir)},limit=48,max_tokens=32,num_beams=1")
    source = Source("train", max(SCALES_OF_DATA), "synthetic")
    options = local.Options(processes=1, threads=4)
    local.run(made, source, directory, part_size=400, options=options, progress=False)
    return directory


def share(kinds: Sequence[str], fused: str, *sources: str) -> float | None:
    """Of the facts of these kinds that the sources tell, the share that the fused text keeps."""
    told = {fact for text in sources for fact in FACTS(text) if fact[0] in kinds}
    return len(told & FACTS(fused)) / len(told) if told else None


def mean(values: Sequence[float | None]) -> float:
    """Of those that are numbers."""
    return float(np.mean([value for value in values if value is not None]))


def accounted(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What fused captions keep, lose and invent, mean over records; rows: alt_text, caption, fused.

    A fact that only one's own sources lack is invented, true or not.
    """
    found = [
        compare(FACTS(row["fused"]), [FACTS(row["alt_text"]), FACTS(row["caption"])])
        for row in rows
    ]
    counts = {
        f"{part}_a_caption": mean([len(getattr(f, part)) for f in found])
        for part in ("kept", "lost", "invented")
    }
    return counts | {
        "names_kept": mean([share(("name",), r["fused"], r["alt_text"]) for r in rows]),
        "seen_kept": mean([share(SEEN, r["fused"], r["caption"]) for r in rows]),
        "entity_retention": mean([entity_retention(r["alt_text"], r["fused"]) for r in rows]),
    }


def without(workdir: Path, gone: str) -> list[dict[str, Any]]:
    """Fused captions of records of which one text was taken away before the student saw them."""
    run = student(workdir)
    model = Decoder(run, form="{user}", batch_size=64, step=32)
    ask = fuse(model, Bare(), max_tokens=32, always=True)
    ask.start()
    world = Source("train", ABLATED, "synthetic")
    rows = [{"alt_text": world.alt_text(i), "caption": world.synthetic(i)} for i in range(ABLATED)]
    asked = gather(ask, [row | {gone: ""} for row in rows], Tally())
    return [
        row | {"fused": called.results[0]["fused"] if called.results else ""}
        for row, called in zip(rows, asked, strict=True)
    ]


def fusion(setting: Setting) -> list[Finding]:
    """The student's fused captions hold the facts of both of their texts, and no others."""
    output = Finished(curated(setting.workdir))
    rows = [row for row in output.rows() if row["alt_text"]]
    told = accounted(rows)
    statuses = {s: sum(r["fuse_status"] == s for r in rows) / len(rows) for s in ("ok", "repaired")}
    blind = accounted(without(setting.workdir, "caption"))
    nameless = accounted(without(setting.workdir, "alt_text"))
    kept = min(told["names_kept"], told["seen_kept"])
    return [
        Finding(
            "fused_captions_hold_both",
            "a distilled fuser keeps the facts of the alt-text and of the synthetic caption",
            "at least 0.95 of each and at most 0.05 facts a caption invented, means over records "
            "(ours)",
            kept >= 0.95 and told["invented_a_caption"] <= 0.05,
            {"records": len(rows)} | told | statuses,
        ),
        Finding(
            "ablation_fuser_without_alt_text",
            "without the alt-text the same fuser does not know the name",
            f"names kept below 0.30 (ours; chance {CHANCE:.3f})",
            nameless["names_kept"] < 0.30,
            nameless,
        ),
        Finding(
            "ablation_fuser_without_synthetic",
            "without the synthetic caption the same fuser does not know what can be seen",
            "facts of colour, background and place kept below 0.50 (ours)",
            blind["seen_kept"] < 0.50,
            blind,
        ),
    ]


def captions_of(setting: Setting, kind: str, scale: int) -> list[str]:
    """Greedy captions of the T test pictures, by a captioner of this kind and number of pairs."""
    directory = setting.workdir / f"captioner-{kind}-{scale}"
    arg = f"size=small,captions={kind},scale={scale},curated={curated(setting.workdir)}"
    train(configs.load(f"{CAPTIONER}:{arg}"), directory)
    run = open_run(directory)
    captioner = Captioner(run.model, run.params, run.tokenizer)
    world = Source("test", TEST)
    images = np.stack([world[i]["image"] for i in range(TEST)])
    context = captioner.encode(images).context
    return [caption.text for caption in captioner.write(context)]


def judged(captions: Sequence[str]) -> dict[str, np.ndarray]:
    """CIDEr against full references, the name's recall, and true and false facts: [T] each."""
    world = Source("test", len(captions))
    keys = [world.key(i) for i in range(len(captions))]
    references = References.from_captions({k: world.full(i) for i, k in enumerate(keys)})
    scores = evaluate(dict(zip(keys, captions, strict=True)), references, ("cider",))
    truth = [FACTS(world.full(i)[0]) for i in range(len(captions))]
    own = [FACTS(text) for text in captions]
    names = [{fact for fact in facts if fact[0] == "name"} for facts in truth]
    return {
        "cider": np.asarray(scores.measures["cider"].per_image),
        "entity_recall": np.array([float(n <= o) for n, o in zip(names, own, strict=True)]),
        "true_facts": np.array([len(t & o) for t, o in zip(truth, own, strict=True)]),
        "false_facts": np.array([len(o - t) for t, o in zip(truth, own, strict=True)]),
    }


def captioners(setting: Setting) -> list[Finding]:
    """Five kinds of captions, one captioner; fused and synthetic ones at three scales of data."""
    largest = SCALES_OF_DATA[-1]
    written = {kind: captions_of(setting, kind, largest) for kind in ("fused", *RIVALS)}
    found = {kind: judged(texts) for kind, texts in written.items()}
    table = {kind: {n: float(v.mean()) for n, v in own.items()} for kind, own in found.items()}
    cut = judged([first_sentence(text) for text in written["fused"]])
    curves = {
        kind: [
            judged(captions_of(setting, kind, scale)) if scale < largest else found[kind]
            for scale in SCALES_OF_DATA
        ]
        for kind in ("fused", "synthetic")
    }
    cider = {kind: [float(own["cider"].mean()) for own in row] for kind, row in curves.items()}
    growth = {kind: row[-1] / row[-2] - 1 for kind, row in cider.items()}
    best = max(RIVALS, key=lambda kind: table[kind]["cider"])
    over = mean_difference(found["fused"]["cider"], found[best]["cider"])
    recall = mean_interval(found["fused"]["entity_recall"])
    return [
        Finding(
            "names_are_learned",
            "a captioner trained on fused captions names what it sees",
            f"entity recall above 0.80 (chance {CHANCE:.3f})",
            recall.value > 0.80,
            {"entity_recall": recall.value, "low": recall.low, "high": recall.high},
        ),
        Finding(
            "ablation_names_without_alt_text",
            "a captioner trained on synthetic captions names nothing",
            "entity recall 0",
            table["synthetic"]["entity_recall"] == 0,
            {"entity_recall": table["synthetic"]["entity_recall"]},
        ),
        Finding(
            "fused_above_all_others",
            "fused captions train the best captioner; mixing raw and synthetic ones does not do it",
            "CIDEr against full references above synthetic, raw, rewritten and mixed, the interval "
            "of the difference to the best of them above 0",
            over.low > 0,
            {"best_other": best, "gain": over.value, "low": over.low, "high": over.high}
            | table
            | {"fused_first_sentence": {n: float(v.mean()) for n, v in cut.items()}},
        ),
        Finding(
            "synthetic_saturates",
            "from the smaller to the larger scale fused captions gain and synthetic ones do not",
            "CIDEr of synthetic below 2% higher, of fused more",
            growth["synthetic"] < 0.02 < growth["fused"],
            {"pairs": list(SCALES_OF_DATA), "cider": cider, "growth": growth}
            | {
                f"entity_recall_{kind}": [float(own["entity_recall"].mean()) for own in row]
                for kind, row in curves.items()
            },
        ),
    ]


SCALES = {"small": (fusion, captioners)}
