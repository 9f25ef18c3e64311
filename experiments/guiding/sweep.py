"""Captions of a data set at many settings, and what they score: the file that tables are made of.

  python -m experiments.guiding.sweep --captioner runs/coco --data data/coco/captions_test.jsonl \\
      --judge clip=runs/clip_b32 --text-prefix "A photo depicts " --out runs/tables/coco.json

writes captions at the guidance scales of Table 1, the scores of each, and the human-caption line. A
judge is an imported or trained encoder; the first one's columns are plain, and the captioner's own
space is the last, where it has one. With a language model (configs/guiding/language_model.py),

  .. --language-model runs/language_model --prompt descriptive --alpha 1,5,10 --beta-shares 0,0.5,1
  .. --language-model runs/language_model --pool data/coco/captions_train.jsonl --shots 2,5,10,20,50

add a row for each alpha and beta = share * alpha (Figure 6), or for each number of captions that
are drawn anew for every four pictures, with alpha = beta = 1 (Table 3 and Figure 8).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from capjax.data.loader import record_batches, stack_images
from capjax.data.spec import open_spec
from capjax.decode.captioner import Captioner
from capjax.decode.guidance import check_scale, warn_if_untrained
from capjax.errors import UserError, exit_cleanly
from capjax.evals.encoder import Encoder
from capjax.runs import Run, open_run
from capjax.whole_file import whole_file
from experiments.guiding import few_shot, published, scoring
from experiments.guiding.language_guidance import WAYS, Guide
from experiments.guiding.lines import check_vocabularies, newline_of
from experiments.guiding.recipe import DECODED

BATCH = 32  # pictures; a multiple of published.MINIBATCH


@dataclasses.dataclass(frozen=True)
class Setting:
    """How captions are decoded: at a guidance scale, or (with alpha) with a language model."""

    guidance_scale: float | None = None
    alpha: float | None = None
    beta: float | None = None
    prompts: Any = None  # few_shot.Fixed or FewShot
    shots: int | None = None
    transfer: str = "end"  # how a line break ends a caption, of language_guidance.WAYS

    def row(self) -> dict[str, float]:
        """The fields that name it in a table."""
        names = ("guidance_scale", "alpha", "beta", "shots")
        return {name: v for name in names if (v := getattr(self, name)) is not None}


def write(
    captioner: Captioner,
    source: Any,
    settings: Sequence[Setting],
    language_model: Run | None = None,
    judges: dict[str, tuple[Encoder, str]] | None = None,
    resize: str = "squash",
    limit: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """{"keys", "references", "labels", "captions": [[N] for each setting], "truncated": [share],
    "images": {judge: [N,E]}} of the first `limit` records (0: all).

    judges: {name: (encoder, resize rule)}; "own" is among the images where the captioner embeds.
    """
    if any(setting.alpha is not None for setting in settings):
        if language_model is None:
            raise UserError("a setting with alpha needs a language model: give one")
        check_vocabularies(captioner.tokenizer, language_model.tokenizer)
    count = min(len(source), limit or len(source))
    prompts = {
        setting.prompts: few_shot.prompt_rows(setting.prompts, count, language_model.tokenizer)
        for setting in settings
        if setting.prompts is not None
    }
    found: dict[str, Any] = {"keys": [], "references": [], "labels": []}
    captions = [[] for _ in settings]
    images: dict[str, list[np.ndarray]] = {}
    batches = tqdm(
        record_batches(source, BATCH, count=count), total=-(-count // BATCH), disable=not progress
    )
    for number, records in enumerate(batches):
        here = len(records)
        side = captioner.model.image_size
        features = captioner.encode(stack_images(records, BATCH, side, resize))
        if hasattr(type(captioner.model), "embed_text"):
            images.setdefault("own", []).append(np.asarray(features.embedding)[:here])
        for name, (encoder, rule) in (judges or {}).items():
            sized = stack_images(records, here, encoder.model.image_size, rule)
            images.setdefault(name, []).append(encoder.images(sized))
        for setting, written in zip(settings, captions, strict=True):
            told = _companion(setting, language_model, prompts, number * BATCH)
            scale = 1.0 if setting.guidance_scale is None else setting.guidance_scale
            written += captioner.write(features.context, scale, companion=told)[:here]
        found["keys"] += [record["key"] for record in records]
        found["references"] += [list(record["captions"]) for record in records]
        found["labels"] += [record.get("label") for record in records]
    if not found["keys"]:
        raise UserError("the data hold no records: nothing to caption")
    return found | {
        "captions": [[caption.text for caption in written] for written in captions],
        "truncated": [float(np.mean([c.truncated for c in written])) for written in captions],
        "images": {name: np.concatenate(parts) for name, parts in images.items()},
    }


def _companion(
    setting: Setting, model: Run | None, prompts: dict[Any, np.ndarray], first: int
) -> Guide | None:
    if setting.alpha is None:
        return None
    rows = None
    if setting.prompts is not None:
        rows = prompts[setting.prompts][first : first + BATCH]
        # The last batch is filled up with black pictures; theirs is the last prompt.
        rows = np.concatenate([rows, np.repeat(rows[-1:], BATCH - len(rows), 0)])
    return Guide(
        model.model,
        model.params,
        alpha=setting.alpha,
        beta=setting.beta,
        prompt=rows,
        end_token=newline_of(model.tokenizer) if setting.prompts is not None else None,
        way=setting.transfer,
    )


def sweep(
    run: Run,
    data: str,
    settings: Sequence[Setting],
    *,
    language_model: Run | None = None,
    judges: dict[str, str] | None = None,
    text_prefix: str = "",
    metrics: Sequence[str] = scoring.AGREEMENT,
    limit: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """What the module's command writes; judges: {name: run directory}, "own" is added."""
    encoders = {}
    for name, directory in (judges or {}).items():
        judge = open_run(directory)
        encoder = Encoder(judge.model, judge.params, judge.tokenizer)
        encoders[name] = encoder, judge.config.data.resize
    captioner = Captioner(run.model, run.params, run.tokenizer)
    warn_if_untrained(run.config, [s.guidance_scale for s in settings if s.guidance_scale])
    found = write(
        captioner,
        open_spec(data),
        settings,
        language_model,
        encoders,
        run.config.data.resize,
        limit,
        progress,
    )
    spaces = {
        name: scoring.Judge(encoder, found["images"][name], text_prefix)
        for name, (encoder, _) in encoders.items()
    }
    if "own" in found["images"]:
        own = Encoder(run.model, run.params, run.tokenizer)
        spaces["own"] = scoring.Judge(own, found["images"]["own"])
    references, rows = found["references"], []
    for setting, captions, cut in zip(settings, found["captions"], found["truncated"], strict=True):
        scores = scoring.score(captions, references, spaces, metrics)
        rows.append(setting.row() | scores | {"truncated": cut, "captions": captions})
    several = min(map(len, references)) > 1
    return {
        "captioner": str(run.directory),
        "step": run.step,
        "data": data,
        "pictures": len(found["keys"]),
        "language_model": str(language_model.directory) if language_model else None,
        "judges": list(spaces),
        "text_prefix": text_prefix,
        "rows": rows,
        "human": scoring.human(references, spaces, metrics) if several else None,
        "keys": found["keys"],
        "references": references,
        "labels": found["labels"],
    }


def settings_of(args: argparse.Namespace) -> list[Setting]:
    """The settings that the command line asks for, guidance scales first."""
    scales = _numbers("--guidance", args.guidance)
    check_scale(scales, len(scales))
    settings = [Setting(guidance_scale=scale) for scale in scales]
    if args.shots and not args.pool:
        raise UserError("--shots needs --pool, the captions that are drawn from")
    if (args.alpha or args.shots) and not args.language_model:
        raise UserError("--alpha and --shots need --language-model, a run directory")
    if args.alpha:
        prompts = few_shot.Fixed(few_shot.read_prompt(args.prompt)) if args.prompt else None
        settings += [
            Setting(None, alpha, share * alpha, prompts, transfer=args.transfer)
            for alpha in _numbers("--alpha", args.alpha)
            for share in _numbers("--beta-shares", args.beta_shares)
        ]
    if args.shots:
        source = open_spec(args.pool)
        pool = [caption for i in range(len(source)) for caption in source.captions(i)]
        for shots in map(int, _numbers("--shots", args.shots)):
            drawn = few_shot.FewShot(pool, shots, args.seed)
            settings.append(Setting(None, 1.0, 1.0, drawn, shots, args.transfer))
    return settings


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"{name} {text!r}: give numbers with commas between, as 1,1.5,2") from None


def named(items: Sequence[str], flag: str) -> dict[str, str]:
    """{name: value} of NAME=VALUE words; a word without a name is named by its last part."""
    found: dict[str, str] = {}
    for item in items:
        name, given, value = item.partition("=")
        if not given:
            name, value = Path(item).stem, item
        if name in found:
            raise UserError(f"{flag}: two are named {name!r}; give them as NAME={value}")
        found[name] = value
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What a sweep is asked for, besides its captioner and its data."""
    parser.add_argument(
        "--judge", nargs="*", default=[], help="NAME=RUN of encoders, first the main"
    )
    parser.add_argument("--text-prefix", default="", help="what judges read before every caption")
    parser.add_argument("--guidance", default=",".join(f"{scale:g}" for scale in DECODED))
    parser.add_argument("--metrics", default=",".join(scoring.AGREEMENT), help="of capjax.metrics")
    parser.add_argument("--limit", type=int, default=0, help="at most so many pictures")
    parser.add_argument(
        "--language-model", default="", help="a run with the captioner's vocabulary"
    )
    parser.add_argument(
        "--prompt", default="", help=f"{', '.join(few_shot.available())}, or a file, a line each"
    )
    parser.add_argument("--alpha", default="", help="with --prompt or without one")
    parser.add_argument(
        "--beta-shares", default=",".join(map(str, published.BETA_SHARES)), help="beta / alpha"
    )
    parser.add_argument("--pool", default="", help="data whose captions are drawn from")
    parser.add_argument("--shots", default="", help="how many of them: 2,5,10,20,50")
    parser.add_argument(
        "--transfer",
        choices=WAYS,
        default="end",
        help="see experiments/guiding/language_guidance.py",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")


def asked(args: argparse.Namespace, captioner: str, data: str) -> dict[str, Any]:
    """The sweep that the command line asks for."""
    return sweep(
        open_run(captioner),
        data,
        settings_of(args),
        language_model=open_run(args.language_model) if args.language_model else None,
        judges=named(args.judge, "--judge"),
        text_prefix=args.text_prefix,
        metrics=args.metrics.split(","),
        limit=args.limit,
    )


def save(path: Path, result: dict[str, Any]) -> None:
    """Writes a sweep."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, "w") as file:
        json.dump(result, file, indent=1)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.guiding.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--captioner", required=True, help="a run directory")
    parser.add_argument("--data", required=True, help="as capjax.data.spec reads it")
    parser.add_argument("--out", type=Path, required=True, help="the JSON that is written")
    add_arguments(parser)
    args = parser.parse_args()
    save(args.out, asked(args, args.captioner, args.data))
    print(f"{args.out} written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    exit_cleanly(main)
