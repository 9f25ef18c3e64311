"""The Ray engine: the same pipeline over the machines of a cluster, by Ray Data.

    ray.data.range(parts) --map_batches: actors, a part at a time--> parts in a shared folder

An actor reads the part's records itself and takes them through all stages in its own process, with
models and connections that live as long as the actor; it writes the part that the local engine
would write, byte for byte. Ray places the actors, feeds them and replaces those that die, and a
part that was cut short is made again from what was kept. Output and cache must be in a folder that
all machines see; each actor keeps its results in a file of its own and reads those of the others
that were there when it began.

A quota is divided evenly among the actors. Raises `UserError` as the local engine does, and where
Ray is not installed.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capjax.curate.cache import NO_QUOTA, Cache, Quota, QuotaReached
from capjax.curate.flow import Flow
from capjax.curate.local import Options, Summary, summary
from capjax.curate.pipeline import Pipeline, load
from capjax.curate.segments import Job, Piece
from capjax.data.skips import SkipBudget
from capjax.data.spec import open_spec
from capjax.errors import UserError


def run_on_ray(
    pipeline: Pipeline,
    source: str,
    fields: Mapping[str, Any],
    directory: Path | str,
    *,
    source_text: str = "",
    cache: Path | str | None = None,
    part_size: int = 1000,
    quota: Quota = NO_QUOTA,
    max_bad_fraction: float = 0.01,
    options: Options | None = None,
) -> Summary:
    """Fills `directory`, or goes on with it, as `local.run` does.

    source, fields: as `capjax.data.spec` opens them, on every machine. options.processes: how many
    actors, by default one for each core of the cluster.
    """
    ray = _ray()
    began = time.monotonic()
    options = options or Options()
    if not pipeline.origin:
        raise UserError("the Ray engine loads the pipeline on every machine: give it from a file")
    place = str(Path(cache) if cache else Path(directory) / "cache")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
    # Its own progress is told in some ten lines a second.
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    actors = options.processes or max(1, int(ray.cluster_resources().get("CPU", 1)))
    job = Job(
        pipeline,
        open_spec(source, fields),
        directory,
        source_text=source_text,
        part_size=part_size,
    )
    told = {
        "pipeline": pipeline.origin,
        "source": (source, dict(fields)),
        "directory": str(Path(directory).resolve()),
        "source_text": source_text,
        "cache": str(Path(place).resolve()),
        "part_size": part_size,
        "quota": _share(quota, actors),
        "chunk": options.chunk,
        "threads": options.threads,
    }
    stopped = ""
    for number, piece in enumerate(job.pieces):
        stopped = _fill(ray, piece, told | {"piece": number}, actors, max_bad_fraction)
        if stopped:
            break
        piece.decide()
    held = Cache(place)
    paid = held.total
    held.close()
    return summary(job, paid, time.monotonic() - began, stopped)


class PartWorker:
    """An actor: takes parts by their number, writes them, and tells how it went."""

    def __init__(self, told: Mapping[str, Any]):
        self._told = told
        pipeline = load(told["pipeline"])
        source = open_spec(*told["source"])
        self._job = Job(
            pipeline,
            source,
            told["directory"],
            source_text=told["source_text"],
            part_size=told["part_size"],
        )
        cache = Cache(told["cache"], told["quota"], writer=uuid.uuid4().hex[:12])
        # Ray has the processes: in this one, stages run here.
        self._flow = Flow(pipeline, cache, processes=0, threads=told["threads"])

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        parts = [int(part) for part in batch["id"]]
        wrong = [self._made(self._told["parts"][part]) for part in parts]
        return {"part": parts, "wrong": [f"{kind} {text}" for kind, text in wrong]}

    def _made(self, part: int) -> tuple[str, str]:
        """("", "") for a part that is written; else whose fault it is, and why."""
        piece = self._job.pieces[self._told["piece"]]
        segment, chunk = piece.segment, self._told["chunk"]
        rows, bad, counts = [], [], Counter()
        places = piece.places(part)
        try:
            for start in range(0, len(places), chunk):
                items, unread = piece.read(part, places[start : start + chunk])
                items, more, own = self._flow.through(items, segment.first, segment.stages)
                rows += piece.rows_of(items)
                bad += unread + more
                counts += own
            piece.folder.write(part, rows, bad, counts)
        except QuotaReached as reached:
            return "quota", str(reached)
        except UserError as error:
            return "user", str(error)
        return "", ""


def _fill(ray: Any, piece: Piece, told: dict, actors: int, max_bad_fraction: float) -> str:
    """Makes the missing parts; why not all of them, or ""."""
    skips = SkipBudget(sum(map(len, piece.folder.ranges)), max_bad_fraction)
    missing = piece.folder.missing
    if not missing:
        return ""
    piece.folder.settle()  # here, as actors would get in each other's way
    count = min(actors, len(missing))
    done = ray.data.range(len(missing), override_num_blocks=len(missing)).map_batches(
        PartWorker,
        fn_constructor_args=(told | {"parts": missing},),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=0.5,  # or else actors on all cores would leave none to feed them
    )
    stopped = ""
    seen: set[tuple[str, str]] = set()
    for row in done.iter_rows():
        kind, _, text = row["wrong"].partition(" ")
        if kind == "user":
            raise UserError(text)
        if kind == "quota":
            stopped = f"the quota is reached ({text})"
        for one in piece.folder.known_bad():
            if one not in seen:
                seen.add(one)
                skips.skip(*one)
    return stopped


def _share(quota: Quota, actors: int) -> Quota:
    def part(limit: Any) -> Any:
        if limit is None:
            return None
        return limit / actors if isinstance(limit, float) else math.ceil(limit / actors)

    return Quota(part(quota.calls), part(quota.tokens), part(quota.cost))


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise UserError("the Ray engine needs Ray: pip install 'capjax[ray]'") from error
    return ray
