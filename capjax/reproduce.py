"""A paper's claims, run at a scale that fits your machine, and what is known of every paper here.

  python -m capjax.reproduce --list
  python -m capjax.reproduce guiding --scale small

A paper's claims are in experiments/<paper>/claims.py: `SCALES` maps a scale to functions, each of
which trains or runs the mechanism and its ablation and returns a `Finding`. The findings are
printed and written to experiments/<paper>/results/<scale>.json. Run it from the root of the
repository. The exit code is 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from capjax.errors import UserError, exit_cleanly

if TYPE_CHECKING:
    from capjax.runs import Run

EXPERIMENTS = Path("experiments")


@dataclasses.dataclass
class Finding:
    """What one claim's function measured."""

    name: str
    claim: str  # one sentence
    bound: str  # what was required of the measured values
    holds: bool | None  # None: reported, nothing was required
    measured: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where a claim works."""

    workdir: Path  # for runs and checkpoints; what is finished there is not trained again
    data: str  # the folder of real data, for scales that need it


Claim = Callable[[Setting], list[Finding]]


def trained(workdir: Path, config: str, arg: str, plain: str) -> Run:
    """The run of a config with an argument, trained, or found finished in `workdir`.

    Its directory is named after both; `plain` stands for no argument.
    """
    from capjax.config import load
    from capjax.runs import open_run
    from capjax.train import train

    name = arg.replace("=", "-").replace(",", "-") or plain
    directory = workdir / f"{Path(config).stem}-{name}"
    train(load(f"{config}:{arg}" if arg else config), directory)
    return open_run(directory)


def claims_of(paper: str) -> ModuleType:
    """The module experiments/<paper>/claims.py; UserError if there is none."""
    if not (EXPERIMENTS / paper / "claims.py").is_file():
        raise UserError(
            f"there is no {EXPERIMENTS / paper / 'claims.py'}: run this from the root of the "
            f"repository, with one of: {', '.join(papers()) or 'no paper found here'}"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(f"experiments.{paper}.claims")


def papers() -> list[str]:
    """The papers that have claims, sorted."""
    return sorted(path.parent.name for path in EXPERIMENTS.glob("*/claims.py"))


def results_path(paper: str, scale: str) -> Path:
    """Where the findings of a paper at a scale are kept."""
    return EXPERIMENTS / paper / "results" / f"{scale}.json"


def run(paper: str, scale: str, setting: Setting) -> list[Finding]:
    """Runs every claim of a paper at a scale, prints and writes what was found."""
    scales = claims_of(paper).SCALES
    if scale not in scales:
        raise UserError(f"{paper} has no scale {scale!r}: choose one of {', '.join(scales)}")
    findings: list[Finding] = []
    started = time.monotonic()
    for claim in scales[scale]:
        for finding in claim(setting):
            print(describe(finding), flush=True)
            findings.append(finding)
    minutes = (time.monotonic() - started) / 60
    write(results_path(paper, scale), findings, minutes)
    print(f"{results_path(paper, scale)} written after {minutes:.1f} minutes")
    return findings


def describe(finding: Finding) -> str:
    """A finding in a few lines."""
    verdict = {True: "HOLDS", False: "DOES NOT HOLD", None: "REPORTED"}[finding.holds]
    values = ", ".join(f"{name} {_short(value)}" for name, value in finding.measured.items())
    lines = [f"{verdict}  {finding.name}: {finding.claim}", f"required: {finding.bound}", values]
    return "\n    ".join(lines)


def write(path: Path, findings: list[Finding], minutes: float) -> None:
    """The findings as JSON, with when and on what they were measured."""
    import jax

    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "date": datetime.date.today().isoformat(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "python": platform.python_version(),
        "minutes": round(minutes, 1),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    # What is not a number (a flip that never comes) is null: NaN is no JSON.
    plain = json.loads(json.dumps(record), parse_constant=lambda _: None)
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def listing() -> str:
    """A line a paper and scale: how many claims hold, and when they were last run."""
    lines = []
    for paper in papers():
        for scale in claims_of(paper).SCALES:
            path = results_path(paper, scale)
            if not path.is_file():
                lines.append(f"{paper:<24}{scale:<16}never run")
                continue
            record = json.loads(path.read_text(encoding="utf-8"))
            required = [f for f in record["findings"] if f["holds"] is not None]
            held = sum(f["holds"] for f in required)
            lines.append(
                f"{paper:<24}{scale:<16}{held} of {len(required)} claims hold; "
                f"run {record['date']} in {record['minutes']} minutes on {record['device']}"
            )
    return "\n".join(lines) or f"no papers found: there is no {EXPERIMENTS}/*/claims.py here"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} {_short(item)}" for name, item in value.items()) + "}"
    return str(value)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m capjax.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paper", nargs="?", help="a folder of experiments/, such as guiding")
    parser.add_argument("--scale", default="small", help="see --list (default: small)")
    parser.add_argument(
        "--workdir", default="runs/reproduce", help="where runs are kept (default: runs/reproduce)"
    )
    parser.add_argument(
        "--data", default="data", help="the folder of real data, for scales that need it"
    )
    parser.add_argument("--list", action="store_true", help="every paper and what is known of it")
    args = parser.parse_args()
    if args.list:
        print(listing())
        return 0
    if not args.paper:
        raise UserError(f"name a paper ({', '.join(papers())}), or ask for --list")
    setting = Setting(Path(args.workdir) / args.paper, args.data)
    findings = run(args.paper, args.scale, setting)
    return int(any(finding.holds is False for finding in findings))


if __name__ == "__main__":
    exit_cleanly(main)
