"""Does a run hold what a published checkpoint holds? Tensor by tensor, and as one number each.

A run that was imported in float32 holds every tensor bit for bit; one stored in bfloat16 is off by
its rounding, and a fine-tuned one by what it has learnt.

Raises `UserError` if the run and the checkpoint are of different models.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from capjax import runs
from capjax.errors import UserError
from capjax.weights import families
from capjax.weights.table import to_tensors


class Difference(NamedTuple):
    """Of one tensor."""

    name: str
    largest: float  # |run's - checkpoint's|
    scale: float  # largest |checkpoint's|


def differences(
    directory: Path | str, path: Path | str, family: str = "", tokenizer: Path | str | None = None
) -> list[Difference]:
    """Of every tensor that the run in `directory` has a parameter for, in the table's order.

    A tensor of which there is more in the run (new tokens) counts as far as the checkpoint goes.
    """
    run = runs.open_run(directory)
    if tokenizer is None and run.tokenizer is not None:
        tokenizer = run.directory / runs.TOKENIZER
    source = families.open_source(path, tokenizer)
    plan = families.recognise(source, family)
    if plan.model["name"] != run.config.model.name:
        raise UserError(
            f"the run's model is {run.config.model.name}, and the checkpoint is one of "
            f"{plan.model['name']}: they cannot be compared"
        )
    found = []
    for name, shape, tensor in to_tensors(plan.table, run.params):
        if name not in source.tensors:
            raise UserError(f"the checkpoint has no tensor {name!r}, which the run has")
        theirs = np.asarray(source.tensors[name], np.float32)
        ours = np.asarray(tensor(), np.float32)
        if len(shape) != theirs.ndim or any(
            a < b for a, b in zip(shape, theirs.shape, strict=True)
        ):
            raise UserError(
                f"the tensor {name!r} has the shape {theirs.shape} in the checkpoint and {shape} "
                "in the run: they cannot be compared"
            )
        ours = ours[tuple(slice(n) for n in theirs.shape)]
        largest = float(np.abs(ours - theirs).max(initial=0.0))
        found.append(Difference(name, largest, float(np.abs(theirs).max(initial=0.0))))
    return found
