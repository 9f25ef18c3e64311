"""Beyond guiding (arXiv 2307.16686): does anything move the frontier of greedy guidance?

  python -m capjax.reproduce guiding --scale beyond

One captioner of configs/guiding/beyond.py is pretrained on generated scenes and fine-tuned as
guiding does it; others are fine-tuned from the same start with a learned vector or a black picture
in the place of the zeroed embedding, with another seed, and on captions that the first one wrote at
the scales of TEACHERS. All of `moves` is then tried on the same pictures. Agreement is CIDEr;
specificity is the oracle's R@1: the chance to pick the picture among all of them, knowing of the
caption alone what it says. `frontier` holds the criterion. Each move's setting is the one with the
largest excess on the first pictures, and is judged on the others.

The criterion, the settings and the bounds were written before any of it was run. Beside
results/beyond.json stand beyond.md, the table of all settings, and beyond.png.

Letters: N pictures, G scales.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capjax import config as configs
from capjax.config import instantiate
from capjax.decode.bulk import Job
from capjax.decode.bulk_parts import Parts
from capjax.decode.bulk_request import Request
from capjax.decode.bulk_settings import settings_of
from capjax.decode.captioner import Captioner
from capjax.evals.encoder import Encoder
from capjax.metrics import frontier
from capjax.metrics.bootstrap import mean_difference
from capjax.reproduce import Finding, Setting, results_path
from capjax.runs import Run, open_run
from capjax.train import train
from experiments.guiding import beyond_report, moves
from experiments.guiding.moves import Space, Writer
from experiments.guiding.trial import Pictures, Trial

CONFIG = "configs/guiding/beyond.py"
CHOSEN, JUDGED = 400, 1000  # pictures that settings are chosen on, and judged on
TEACHERS = (1.0, 1.5, 2.0)
TAUGHT = 4000  # pictures that students read captions of
KEPT = 0.9  # of the teacher's rise in R@1, and of its CIDEr, that a student has in one pass
MOVES = ("beams", "best of n", "schedule", "stopping rule", "learned null", "pixel masking")
STUDENT, SEED = "distillation", "another seed"


def captioner(workdir: Path, name: str, **fields: Any) -> Run:
    """A run of CONFIG, trained or found finished in `workdir`."""
    arg = ",".join(f"{key}={value}" for key, value in fields.items())
    directory = workdir / f"beyond-{name}"
    train(configs.load(f"{CONFIG}:{arg}" if arg else CONFIG), directory)
    return open_run(directory)


def teach(run: Run, folder: Path, pictures: int = TAUGHT) -> Path:
    """A folder of the captions that `run` writes about its first training pictures, or finds."""
    section = run.config.data.train.to_dict() | {"size": pictures}
    source = instantiate(section, "Source", where="the pictures to be taught")
    request = Request(scales=TEACHERS)
    settings = settings_of(run, source, str(section), request)
    parts = Parts(folder, settings, request.columns, records=pictures, part_size=1000)
    writer = Captioner(run.model, run.params, run.tokenizer)
    Job(writer, source, request, resize=run.config.data.resize, batch_size=moves.BATCH).fill(parts)
    return folder


def tried(workdir: Path, base: Run, images: np.ndarray, space: Space) -> Iterator[moves.Setting]:
    """Every setting, greedy ones first. space: of `base`, the captioner that all start from."""
    start = {"init": base.directory}
    main = captioner(workdir, "zeros", **start)
    writer = writer_of(main, images)
    written = [[group[0] for group in writer.write(scale)] for scale in moves.GREEDY]
    for scale, captions in zip(moves.GREEDY, written, strict=True):
        yield moves.Setting("greedy", f"γ={scale:g}", [c.text for c in captions], scale)
    yield from moves.beams(writer)
    yield from moves.best_of_n(writer, space)
    yield from moves.schedules(writer)
    yield from moves.stopped(written, space, slice(None, CHOSEN))
    learned = captioner(workdir, "learned", **start, null="learned")
    yield from writer_of(learned, images).greedy("learned null", moves.OTHERS)
    pixels = captioner(workdir, "pixels", **start, null="pixels")
    black = np.zeros_like(images[0])
    yield from writer_of(pixels, images, black).greedy("pixel masking", moves.OTHERS)
    other = captioner(workdir, "seed", **start, seed=1)
    yield from writer_of(other, images).greedy(SEED, moves.OTHERS)
    folder = teach(main, workdir / "beyond-captions")
    for scale in TEACHERS:
        name = f"student-{scale:g}"
        fields = start | {"init": main.directory, "captions": folder, "guidance": scale}
        student = writer_of(captioner(workdir, name, **fields), images)
        scales = moves.STUDENTS if scale != 1 else (1.0,)
        move = STUDENT if scale != 1 else "student of γ=1"
        yield from student.greedy(move, scales, f"taught γ={scale:g}, ")


def writer_of(run: Run, images: np.ndarray, blind: np.ndarray | None = None) -> Writer:
    """See `Writer`."""
    return Writer(run.model, run.params, run.tokenizer, images, blind)


def claims(setting: Setting) -> list[Finding]:
    """The trade-off, the criterion's own controls, every move, and distillation into one pass."""
    section = configs.load(CONFIG).evals.guidance.data.to_dict() | {"size": CHOSEN + JUDGED}
    source = instantiate(section, "Source", where="the pictures to caption")
    records = [source[i] for i in range(len(source))]
    images = np.stack([record["image"] for record in records])
    base = captioner(setting.workdir, "base")
    encoder = Encoder(base.model, base.params, base.tokenizer, moves.BATCH)
    every = list(tried(setting.workdir, base, images, Space(encoder, images)))
    parts = [
        Pictures(records[part], Space(encoder, images[part]))
        for part in (slice(None, CHOSEN), slice(CHOSEN, None))
    ]
    findings, rows = judged(Trial(*parts, greedy_of(every)), every)
    beyond_report.write(results_path("guiding", "beyond"), rows, findings)
    return findings


def greedy_of(settings: Sequence[moves.Setting]) -> list[moves.Setting]:
    """The curve that all is compared with."""
    return [setting for setting in settings if setting.move == "greedy"]


def judged(
    trial: Trial, every: Sequence[moves.Setting]
) -> tuple[list[Finding], dict[str, list[dict[str, Any]]]]:
    """(findings, {move: a row for each of its settings})."""
    greedy = greedy_of(every)
    values = {
        name: np.array(
            [
                np.concatenate([trial.measure(part, one)[name] for part in ("chosen", "judged")])
                for one in greedy
            ]
        )
        for name in ("cider", "recall_at_1")
    }
    checks = list(moves.controls(greedy, values))
    by_move = {
        move: list(group) for move, group in itertools.groupby(every, lambda setting: setting.move)
    }
    findings = [trade_off(trial, greedy), criterion(trial, checks)]
    for move in (*MOVES, STUDENT, SEED):
        findings.append(moved(trial, move, by_move[move]))
    findings += one_pass(trial, greedy, by_move[STUDENT] + by_move["student of γ=1"])
    rows = {move: [trial.row(one) for one in group] for move, group in by_move.items()}
    return findings, rows


def trade_off(trial: Trial, greedy: Sequence[moves.Setting]) -> Finding:
    """Without one there would be no frontier to move."""
    plain, guided = (
        trial.measure("judged", next(s for s in greedy if s.scale == scale)) for scale in (1, 2)
    )
    kind = {"confidence": frontier.CONFIDENCE}
    found = {n: mean_difference(guided[n], plain[n], **kind) for n in ("cider", "recall_at_1")}
    return Finding(
        "trade_off",
        "in this world greedy guidance trades agreement for specificity",
        "from gamma 1 to 2 CIDEr falls and the oracle's R@1 rises, both 99% intervals without zero",
        found["cider"].high < 0 < found["recall_at_1"].low,
        {
            f"{name}_{what}": value
            for name, d in found.items()
            for what, value in (("difference", d.value), ("low", d.low), ("high", d.high))
        },
    )


def criterion(trial: Trial, checks: Sequence[moves.Setting]) -> Finding:
    """Whether it can tell."""
    found = {check.label: trial.excess("judged", check) for check in checks}
    right = [
        (frontier.verdict(found[check.label]) == "ahead") == (check.move == "cheat")
        for check in checks
    ]
    return Finding(
        "criterion",
        "the criterion credits no mixture of greedy scales, and does credit a cheat that knows the "
        "references",
        "a coin between two scales is not ahead of the curve; the best of all scales for each "
        "picture is",
        all(right),
        {label: {"excess": f.value, "low": f.low, "high": f.high} for label, f in found.items()},
    )


def moved(trial: Trial, move: str, settings: Sequence[moves.Setting]) -> Finding:
    """One move against the curve, by the setting that did best on other pictures."""
    best = trial.best(settings)
    row, above = trial.row(best), trial.excess("judged", best)
    what = "greedy guidance of the same recipe, trained again" if move == SEED else move
    return Finding(
        move.replace(" ", "_"),
        f"{what} against greedy guidance at equal CIDEr",
        "none: reported only (ahead: the 99% interval of the excess in R@1 lies above zero)",
        None,
        {"verdict": frontier.verdict(above), "setting": best.label}
        | {name: row[name] for name in ("excess", "low", "high", "cider", "recall_at_1")},
    )


def one_pass(
    trial: Trial, greedy: Sequence[moves.Setting], students: Sequence[moves.Setting]
) -> list[Finding]:
    """A student at gamma 1 beside its teacher at gamma 2, and one whose teacher was not guided."""
    score = lambda one: {k: v.mean() for k, v in trial.measure("judged", one).items()}  # noqa: E731
    plain, teacher = (score(next(s for s in greedy if s.scale == scale)) for scale in (1, 2))
    found = []
    for taught, name, wanted in ((2, "one_pass", True), (1, "ablation_unguided_teacher", False)):
        label = f"taught γ={taught}, γ=1"
        student = score(next(s for s in students if s.label == label))
        rise = teacher["recall_at_1"] - plain["recall_at_1"]
        own = student["recall_at_1"] - plain["recall_at_1"]
        share = own / rise if rise else float("nan")
        holds = share >= KEPT and student["cider"] >= KEPT * teacher["cider"]
        found.append(
            Finding(
                name,
                f"a student of captions written at gamma {taught} writes at gamma 1, in one pass, "
                "as its teacher does at gamma 2" + ("" if wanted else ": it must not"),
                f"at least {KEPT:g} of the teacher's rise in R@1 from gamma 1 to 2, and of its "
                "CIDEr there" + ("" if wanted else ", do not both hold"),
                bool(holds == wanted),
                {"share_of_rise": float(share)}
                | {
                    f"{who}_{metric}": float(values[metric])
                    for who, values in (("plain", plain), ("teacher", teacher), ("own", student))
                    for metric in ("cider", "recall_at_1")
                },
            )
        )
    return found
