"""How a stage is called on some records, whatever its place: each gets a result or a reason.

This is what runs in a worker process as well as in the driver. A stage that raises on a record
costs that record alone: a batch that fails is tried again one by one. `UserError` is a mistake in
the pipeline and stops the run; `BadRecord`, although a UserError, is the record's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from capjax.curate.cache import QuotaReached
from capjax.curate.stage import Fields, as_results
from capjax.errors import BadRecord, UserError


class Called(NamedTuple):
    """What a stage made of one record: outputs, or why there are none."""

    results: list[dict[str, Any]] | None
    reason: str = ""


def call_one(stage: Any, fields: Fields) -> Called:
    """A stage that is called with the fields of a record."""
    try:
        return Called(as_results(stage, stage(fields)))
    except Exception as error:
        return Called(None, reason_of(error))


def call_batch(stage: Any, rows: Sequence[Fields]) -> list[Called]:
    """A stage with `batch`, in batches of its size."""
    size = getattr(stage, "batch_size", 0) or len(rows)
    found: list[Called] = []
    for start in range(0, len(rows), size):
        found += _one_batch(stage, rows[start : start + size])
    return found


async def call_async(stage: Any, fields: Fields, ledger: Any) -> Called:
    """A stage with `answer`."""
    try:
        return Called(as_results(stage, await stage.answer(fields, ledger)))
    except Exception as error:
        return Called(None, reason_of(error))


def gather(stage: Any, rows: Sequence[Fields], ledger: Any) -> list[Called]:
    """All records by a stage with `answer`, in an event loop of their own."""

    async def run() -> list[Called]:
        return list(await asyncio.gather(*(call_async(stage, row, ledger) for row in rows)))

    return asyncio.run(run())


def reason_of(error: Exception) -> str:
    """Why a record is left out; what is no fault of the record is raised."""
    if isinstance(error, BadRecord):
        return error.reason
    if isinstance(error, UserError | QuotaReached):
        raise error
    told = " ".join(str(error).split())
    return f"{type(error).__name__}: {told}" if told else type(error).__name__


def _one_batch(stage: Any, rows: Sequence[Fields]) -> list[Called]:
    try:
        results = stage.batch(rows)
    except Exception as error:
        if len(rows) == 1:
            return [Called(None, reason_of(error))]
        reason_of(error)  # raises what no record is to blame for
        return [called for row in rows for called in _one_batch(stage, [row])]
    if len(results) != len(rows):
        raise UserError(
            f"stage {stage.name!r} gave {len(results)} results for a batch of {len(rows)} records"
        )
    return [Called(as_results(stage, result)) for result in results]
