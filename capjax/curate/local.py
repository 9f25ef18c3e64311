"""The local engine: one machine, bounded memory, results in the order of the source.

    chunks of records --threads--> read, stage, stage, ...  --in order--> parts
                                     |         |
                          worker processes   servers

Each thread takes a chunk through all stages; which stage runs where is the stage's own
(`capjax.curate.stage`). As many chunks are under way as keep servers and workers busy, and no more.
What is killed goes on where it was: finished parts stay, and results that were kept by content
(`cache`) are not made again.

Raises `UserError` when more records are bad than the budget allows, and as the parts do.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from capjax.curate.cache import NO_QUOTA, Cache, Paid, Quota, QuotaReached
from capjax.curate.flow import Bad, Flow, Item
from capjax.curate.pipeline import Pipeline
from capjax.curate.progress import Progress
from capjax.curate.segments import Job, Piece
from capjax.data.skips import SkipBudget


@dataclasses.dataclass(frozen=True)
class Options:
    """What changes speed and memory, and nothing that comes out.

    chunk: records that go through the stages together; processes: for stages of that place, all
    cores by default; threads: for stages of that place, and for reading; under_way: chunks at a
    time, by default what the stages need; ahead: how many times as many may wait to be written,
    behind a slow one.
    """

    chunk: int = 64
    processes: int = 0
    threads: int = 16
    under_way: int = 0
    ahead: int = 4


@dataclasses.dataclass(frozen=True)
class Summary:
    """How a run ended: `stopped` says why it is not complete, "" if it is."""

    records: int
    parts: int
    all_parts: int
    bad: int
    paid: Paid
    seconds: float
    stopped: str = ""


class _Chunk(NamedTuple):
    part: int
    places: range
    ends_part: bool


class _Done(NamedTuple):
    chunk: _Chunk
    items: list[Item]
    bad: list[Bad]
    counts: Counter


def run(
    pipeline: Pipeline,
    source: Any,
    directory: Path | str,
    *,
    source_text: str = "",
    cache: Path | str | None = None,
    part_size: int = 1000,
    quota: Quota = NO_QUOTA,
    max_bad_fraction: float = 0.01,
    options: Options = Options(),
    progress: bool = True,
) -> Summary:
    """Fills `directory`, or goes on with it; see the top of this file.

    cache: the folder of kept results, DIR/cache by default; another run's, to go on from what it
    paid for.
    """
    began = time.monotonic()
    job = Job(pipeline, source, directory, source_text=source_text, part_size=part_size)
    held = Cache(Path(cache) if cache else job.directory / "cache", quota)
    flow = Flow(pipeline, held, options.processes or os.cpu_count() or 1, options.threads)
    stopped = ""
    try:
        for piece in job.pieces:
            _fill(piece, flow, len(source), max_bad_fraction, options, progress)
            piece.decide()
    except QuotaReached as reached:
        stopped = f"the quota is reached ({reached})"
    finally:
        flow.close()
        paid = held.total
        held.close()
    return summary(job, paid, time.monotonic() - began, stopped)


def summary(job: Job, paid: Paid, seconds: float, stopped: str) -> Summary:
    """What is there now."""
    last = job.pieces[-1].folder
    done = len(last.ranges) - len(last.missing)
    bad = sum(len(piece.folder.known_bad()) for piece in job.pieces)
    return Summary(len(job.source), done, len(last.ranges), bad, paid, seconds, stopped)


def _fill(
    piece: Piece,
    flow: Flow,
    records: int,
    max_bad_fraction: float,
    options: Options,
    progress: bool,
) -> None:
    folder = piece.folder
    skips = SkipBudget(records, max_bad_fraction)
    for key, reason in folder.known_bad():
        skips.skip(key, reason)
    missing = folder.missing
    shown = Progress(
        sum(map(len, folder.ranges)),
        sum(len(folder.ranges[part]) for part in range(len(folder.ranges)) if part not in missing),
        f"until {piece.segment.corpus.name}" if piece.segment.corpus else flow.pipeline.name,
        progress,
    )
    items: list[Item] = []
    bad: list[Bad] = []
    counts: Counter = Counter()
    try:
        for done in _in_order(piece, missing, flow, options):
            items += done.items
            bad += done.bad
            counts += done.counts
            for one in done.bad:
                skips.skip(one.key, f"{one.stage}: {one.reason}")
            if done.chunk.ends_part:
                folder.write(done.chunk.part, piece.rows_of(items), bad, counts)
                items, bad, counts = [], [], Counter()
            # Behind a stage of all records a part has other rows; what counts is the source's.
            ends = len(folder.ranges[done.chunk.part]) if done.chunk.ends_part else 0
            shown.add(len(done.chunk.places) if piece.is_first else ends, flow.cache.total)
    finally:
        shown.close()


def _in_order(piece: Piece, missing: list[int], flow: Flow, options: Options) -> Iterator[_Done]:
    """All chunks of the missing parts, done, in order."""
    threads = options.under_way or chunks_needed(flow.pipeline, options.chunk)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="chunk")
    waiting: collections.deque[Future] = collections.deque()
    try:
        for chunk in _chunks(piece, missing, options.chunk):
            waiting.append(pool.submit(_do, piece, flow, chunk))
            if len(waiting) >= threads * options.ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except KeyboardInterrupt:
        flow.abort()
        raise
    finally:
        # Where the quota ends it: what is under way is kept by content, and nothing new is asked.
        pool.shutdown(cancel_futures=True)


def chunks_needed(pipeline: Pipeline, chunk: int) -> int:
    """How many chunks at a time keep every server, worker and pool of the pipeline busy."""
    calls = sum(getattr(stage, "concurrency", 0) for stage in pipeline.stages)
    places = {stage.place for stage in pipeline.stages}
    # Twice what is asked at a time, as some chunks are at other stages, and two for those.
    waits = -(-2 * calls // chunk)
    return (
        2
        + waits
        + 2 * len(places & {"threads", "worker"})
        + ((os.cpu_count() or 1) if "processes" in places else 0)
    )


def _chunks(piece: Piece, missing: list[int], size: int) -> Iterator[_Chunk]:
    for part in missing:
        places = piece.places(part)
        starts = range(0, len(places), size) or range(1)  # an empty part has one chunk
        for start in starts:
            some = places[start : start + size]
            yield _Chunk(part, some, start == starts[-1])


def _do(piece: Piece, flow: Flow, chunk: _Chunk) -> _Done:
    items, unread = piece.read(chunk.part, chunk.places)
    items, bad, counts = flow.through(items, piece.segment.first, piece.segment.stages)
    return _Done(chunk, items, unread + bad, counts)
