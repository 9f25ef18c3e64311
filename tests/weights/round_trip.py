"""Import, export, load again: the public libraries compute the same before and after.

    PEER_PYTHON   tests/weights/round_trip.py make FOLDER [CASE ...]
    CAPJAX_PYTHON tests/weights/round_trip.py pass FOLDER [CASE ...]
    PEER_PYTHON   tests/weights/round_trip.py check FOLDER [CASE ...]

PEER_PYTHON is an interpreter with torch, transformers, open_clip_torch, timm and sentencepiece,
CAPJAX_PYTHON one with capjax; they may be the same. Nothing is downloaded.

`make` writes a small model of every family with drawn weights, as it is published, loads it with
its own library, tokenizer and preprocessing, too, and keeps what that answers for fixed captions
and pictures. `pass` imports each, exports it as published and in bfloat16, and verifies the run.
`check` loads what was exported in the same way, compares the answers and prints a table; it exits
with 1 if one is off by more than 1e-5 of the largest answer, or does not load. What was exported in
bfloat16 is compared with the published weights as PyTorch rounds them; the last column shows how
far their answers are from those in float32, which is the model's affair.

    FOLDER/CASE/published       written by make
    FOLDER/CASE/float32.npz     what the library answers for it, and
    FOLDER/CASE/bfloat16.npz    with its weights rounded
    FOLDER/CASE/run             the imported run
    FOLDER/CASE/exported, FOLDER/CASE/exported_bfloat16

A module of `round_trips/` has `CASES`, {name: (make(folder), answer(folder, dtype) -> arrays by
name)}; `dtype` is PyTorch's type that weights are rounded to before the model computes.
"""

import argparse
import importlib
import pathlib
import shutil
import subprocess
import sys
import traceback

import numpy as np

HERE = pathlib.Path(__file__).parent
BOUND = 1e-5
EXPORTS = {"exported": "float32", "exported_bfloat16": "bfloat16"}
BY_COMMAND = "gpt2"  # by the command line, the others by its functions


def main():
    """Runs one phase."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=("make", "pass", "check"))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="all by default")
    args = parser.parse_args()
    phase = {"make": make, "pass": go_through, "check": check}[args.phase]
    sys.exit(phase(args.folder, args.cases))


def make(folder, names):
    """Writes the published checkpoints and what their libraries answer."""
    import torch

    for name, (write, answer) in chosen(names).items():
        published = folder / name / "published"
        shutil.rmtree(folder / name, ignore_errors=True)
        published.mkdir(parents=True)
        write(published)
        for dtype in EXPORTS.values():
            answers = answer(published, getattr(torch, dtype))
            np.savez(folder / name / f"{dtype}.npz", **answers)
        print(f"{name}: {len(answers)} answers")


def go_through(folder, names):
    """Imports, exports and verifies all of them; 1 if one fails."""
    failed = 0
    for name in names or sorted(path.parent.name for path in folder.glob("*/published")):
        for left in ("run", *EXPORTS):
            shutil.rmtree(folder / name / left, ignore_errors=True)
        try:
            (by_command if name == BY_COMMAND else by_functions)(folder / name)
            print(f"{name}: through")
        except Exception:
            failed = 1
            traceback.print_exc()
            print(f"{name}: FAILED")
    return failed


def by_functions(case):
    """One checkpoint through capjax in this process."""
    from capjax.weights.exporting import export
    from capjax.weights.importing import import_checkpoint
    from capjax.weights.verify import differences

    import_checkpoint(case / "published", case / "run")
    export(case / "run", case / "exported")
    export(case / "run", case / "exported_bfloat16", dtype="bfloat16")
    other = [d for d in differences(case / "run", case / "published") if d.largest > 0]
    if other:
        raise ValueError(f"the run's tensors differ from the checkpoint's: {other}")


def by_command(case):
    """One checkpoint through `python -m capjax.weights`."""
    published, run, exported, half = (case / x for x in ("published", "run", *EXPORTS))
    for arguments in (
        ("import", published, "--to", run),
        ("export", run, "--to", exported),
        ("export", run, "--to", half, "--dtype", "bfloat16"),
        ("verify", run, published),
    ):
        subprocess.run([sys.executable, "-m", "capjax.weights", *map(str, arguments)], check=True)


def check(folder, names):
    """Prints the table; 1 if an answer is off."""
    import torch

    reasons = []
    print(f"{'case':20} {'tensors':>7} {'as published':>12} {'bfloat16':>8} {'its rounding':>12}")
    for name, (_, answer) in chosen(names).items():
        expected = {dtype: saved(folder / name / f"{dtype}.npz") for dtype in EXPORTS.values()}
        cells = []
        for kind, dtype in EXPORTS.items():
            try:
                off = distance(answer(folder / name / kind, getattr(torch, dtype)), expected[dtype])
            except Exception as error:  # whatever a library says of what it cannot load
                cells.append("no")
                reasons.append(f"{name}, {kind}: {type(error).__name__}: {error}")
                continue
            cells.append(f"{off:.1e}")
            if not off <= BOUND:
                reasons.append(f"{name}, {kind}: off by {off:.1e}")
        cells.append(f"{distance(expected['bfloat16'], expected['float32']):.1e}")
        count = tensors_in(folder / name / "exported")
        print(f"{name:20} {count:7} {cells[0]:>12} {cells[1]:>8} {cells[2]:>12}")
    print(*reasons, sep="\n")
    return int(bool(reasons))


def saved(path):
    """The answers that make kept."""
    if not path.exists():
        sys.exit(f"there is no {str(path)!r}: run make first")
    with np.load(path) as file:
        return dict(file)


def distance(found, expected):
    """The largest |difference| of any answer, relative to the largest number in it."""
    if set(found) != set(expected):
        raise ValueError(f"answers {sorted(found)}, expected {sorted(expected)}")
    largest = 0.0
    for name, theirs in expected.items():
        if found[name].shape != theirs.shape:
            raise ValueError(f"{name} has the shape {found[name].shape}, expected {theirs.shape}")
        off = np.abs(np.asarray(found[name], np.float64) - theirs).max() / np.abs(theirs).max()
        largest = max(largest, off) if np.isfinite(off) else np.inf
    return largest


def tensors_in(folder):
    """How many there are in a folder of safetensors files."""
    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            count += len(file.keys())
    return count


def chosen(names):
    """The cases of these names, or all, in the order of the modules."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    cases = {}
    for path in sorted((HERE / "round_trips").glob("*_cases.py")):
        cases |= importlib.import_module(f"round_trips.{path.stem}").CASES
    for name in names:
        if name not in cases:
            sys.exit(f"unknown case {name!r}: choose of {', '.join(cases)}")
    return {name: cases[name] for name in names or cases}


if __name__ == "__main__":
    main()
