"""Runs a checkpoint's evaluators and writes their numbers, and a report of the guidance sweep.

  python -m capjax.evaluate --checkpoint runs/demo/captioner --encoder runs/demo/encoder \\
      --guidance 1,1.5,2,3 --out runs/demo

The evaluators are those of the run's config (`config.evals`), or some of them (--evals). Their
data, guidance scales and encoder can be replaced: --data takes a manifest (a JSONL of pictures and
captions) or, for data that has splits, the name of one, such as test.

--out DIR holds results.json (`rows`, one a guidance scale, and `metrics`), results.md,
captions.jsonl, pareto.png and report.html. --json FILE holds the numbers alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from capjax.errors import UserError, exit_cleanly
from capjax.parallel import process_flags
from capjax.whole_file import whole_file


def evaluator_sections(config, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The sections of `config.evals` to run, with what the command line replaces in them."""
    sections = {name: section.to_dict() for name, section in config.evals.items()}
    names = args.evals.split(",") if args.evals else list(sections)
    unknown = [name for name in names if name not in sections]
    if unknown or not names:
        raise UserError(
            f"the run has no evaluator {unknown[0]!r}: "
            if unknown
            else f"the run has no evaluator: its config names {', '.join(sections) or 'none'}"
        )
    chosen = {name: sections[name] for name in names}
    for section in chosen.values():
        guided = section["type"] == "capjax.evals.guidance"
        if args.data:
            section["data"] = data_section(args.data, section["data"])
        if guided and args.guidance:
            section["guidance_scales"] = args.guidance
        if guided and args.encoder:
            section["encoder"] = args.encoder
        if guided and args.data:
            section["limit"] = 0
        if guided and args.limit:
            section["limit"] = args.limit
        if args.max_bad_fraction is not None:
            section["max_bad_fraction"] = args.max_bad_fraction
            if section["data"]["name"] == "capjax.data.manifest":
                section["data"]["max_bad_fraction"] = args.max_bad_fraction
    return chosen


def data_section(spec: str, data: dict[str, Any]) -> dict[str, Any]:
    """A source section from --data: a manifest's path, or another split of the evaluator's data."""
    if spec.endswith(".jsonl"):
        return {"name": "capjax.data.manifest", "path": spec}
    if "split" not in data:
        raise UserError(
            f"--data {spec!r} is no .jsonl manifest, and the run's evaluation data has no splits: "
            "give a manifest"
        )
    return {**data, "split": spec}


def results_of(sweep, config, section: dict[str, Any]) -> dict[str, Any]:
    """What results.json says of a sweep besides its rows."""
    notes = [f"{len(sweep.keys)} pictures; intervals are 95% bootstrap intervals over pictures."]
    if not section.get("encoder"):
        notes.append("No separate encoder was given: columns beginning own_ are the captioner's.")
    if sweep.skipped:
        notes.append(f"{sweep.skipped} records could not be used and were left out.")
    return {
        "title": "Guidance sweep",
        "rows": sweep.rows,
        "settings": {
            "model": config.model.to_dict(),
            "conditioning_dropout": config.task.get("conditioning_dropout", 0.0),
            "data": section["data"],
            "encoder": section.get("encoder", ""),
            "text_prefix": section.get("text_prefix", ""),
            "decoding": "greedy",
        },
        "notes": notes,
    }


def write_report(out: Path, results: dict[str, Any], sweep) -> None:
    """results.md, captions.jsonl, pareto.png and report.html in the folder `out`."""
    from capjax.report import page, pareto, table

    (out / "results.md").write_text(table.markdown(results["rows"]) + "\n", encoding="utf-8")
    pareto.plot(results["rows"], out / "pareto.png")
    examples = [
        {
            "key": sweep.keys[i],
            "image": picture,
            "references": sweep.references[i],
            "captions": [
                {
                    "guidance_scale": scale,
                    "caption": captions[i].text,
                    "truncated": captions[i].truncated,
                }
                for scale, captions in sweep.captions.items()
            ],
        }
        for i, picture in enumerate(sweep.pictures)
    ]
    page.write(out / "report.html", results, examples, out / "pareto.png")
    with (out / "captions.jsonl").open("w", encoding="utf-8") as file:
        for scale, captions in sweep.captions.items():
            values = sweep.per_picture[scale]
            for i, (key, caption) in enumerate(zip(sweep.keys, captions, strict=True)):
                line = {
                    "key": key,
                    "guidance_scale": scale,
                    "caption": caption.text,
                    "log_prob": round(caption.log_prob, 4),
                    "truncated": caption.truncated,
                    "scores": {name: round(float(v[i]), 6) for name, v in values.items()},
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def evaluate(run, sections: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], Any]:
    """Runs evaluators on an open run: (results with `rows` and `metrics`, the sweep or None)."""
    from capjax.config import instantiate

    results: dict[str, Any] = {"rows": [], "metrics": {}}
    found = None
    for name, section in sections.items():
        evaluator = instantiate(
            section,
            "Evaluator",
            where=f"config.evals.{name}",
            model=run.model,
            tokenizer=run.tokenizer,
        )
        if hasattr(evaluator, "sweep"):
            if found is not None:
                raise UserError("two evaluators sweep guidance scales: name one with --evals")
            found = evaluator.sweep(run.params)
            results |= results_of(found, run.config, section)
        else:
            results["metrics"] |= evaluator.run(run.params)
    results["checkpoint_step"] = run.step
    return results, found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m capjax.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, help="a run directory")
    parser.add_argument("--evals", help="evaluators of its config, by name: a,b (default: all)")
    parser.add_argument("--data", help="a manifest.jsonl, or a split: train, val or test")
    parser.add_argument("--guidance", help="guidance scales, such as 1,1.5,2,3")
    parser.add_argument("--encoder", help="a dual encoder's run directory, to score captions with")
    parser.add_argument("--limit", type=int, help="sweep over the first so many pictures only")
    parser.add_argument(
        "--max-bad-fraction",
        type=float,
        help="share of records that may be unusable before the run stops (default: the config's)",
    )
    parser.add_argument("--out", help="a folder for results.json and the report")
    parser.add_argument("--json", help="a file for the numbers alone")
    process_flags.add(parser)
    args = parser.parse_args()

    import jax

    from capjax.caption import parse_scales
    from capjax.decode.guidance import warn_if_untrained
    from capjax.parallel import processes
    from capjax.parallel.rows import on_devices
    from capjax.report import table
    from capjax.runs import open_run

    if args.guidance:
        args.guidance = parse_scales(args.guidance)
        # Sorted, because the report draws its curve in this order.
        args.guidance = tuple(sorted(args.guidance))
    processes.start(args)
    run = open_run(args.checkpoint)
    if jax.process_count() > 1:
        run = dataclasses.replace(run, params=on_devices(run.params))
    if args.guidance:
        warn_if_untrained(run.config, args.guidance)
    results, sweep = evaluate(run, evaluator_sections(run.config, args))
    if not processes.is_first():
        return  # process 0 has the same numbers and writes them
    if sweep is not None:
        print(table.text(results["rows"]))
    for name, value in results["metrics"].items():
        print(f"{name}: {value:.4f}")
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    if args.out:
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        with whole_file(out / "results.json") as file:
            file.write(text)
        if sweep is not None:
            write_report(out, results, sweep)
        written = sorted(str(path) for path in out.iterdir() if path.is_file())
        print(f"written: {', '.join(written)}")
    if args.json:
        with whole_file(args.json) as file:
            file.write(text)


if __name__ == "__main__":
    exit_cleanly(main)
