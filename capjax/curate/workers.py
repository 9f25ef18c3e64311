"""Worker processes: a pool for Python that computes, and one process for each group of models.

They are spawned, not forked, since JAX and its threads do not survive a fork; each loads the
pipeline itself, from its file, and starts a model when the first record for it comes. Models with
the same `worker` share a process, because one process alone can hold a TPU, and a GPU's memory is
taken by the first that asks.

A worker that dies (killed, out of memory) is replaced and its records are done again: stages are
pure. A record on which a worker dies alone, three times, is the record's fault and left out. When
the driver dies, workers end by themselves.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from capjax.curate.calls import Called, call_batch, call_one, gather
from capjax.curate.pipeline import Pipeline, load
from capjax.curate.stage import Fields

_DEATHS = 3  # of workers on one record alone, before it is left out
_DEATHS_TOGETHER = 2  # on several records, before they are done one by one


class Tally:
    """A ledger that only remembers: what a worker process hands to the driver with its results."""

    def __init__(self):
        self.entries: list[tuple] = []

    def reserve(self) -> None:
        """A model of our own costs nothing, so that no quota can stop it."""

    def unpaid(self) -> None:
        """See `reserve`."""

    def paid(self, *entry: Any) -> None:
        self.entries.append(("paid", *entry))

    def failed(self, *entry: Any) -> None:
        self.entries.append(("failed", *entry))


class Workers:
    """Calls of stages in other processes, from any thread."""

    def __init__(self, pipeline: Pipeline, processes: int):
        self._pipeline, self._processes = pipeline, processes
        self._pools: dict[str, ProcessPoolExecutor] = {}
        self._lock = threading.Lock()

    def call(self, number: int, rows: Sequence[Fields]) -> tuple[list[Called], list[tuple]]:
        """What stage `number` makes of the rows, and entries for the ledger."""
        stage = self._pipeline.stages[number]
        alone = stage.place == "worker"
        name = f"worker {getattr(stage, 'worker', 'models')}" if alone else "processes"
        for _ in range(_DEATHS if len(rows) == 1 else _DEATHS_TOGETHER):
            pool = self._pool(name, 1 if alone else self._processes)
            try:
                return pool.submit(_called, number, list(rows)).result()
            except (RuntimeError, CancelledError) as error:
                # A pool that broke; or one that another thread has just thrown away for that.
                gone = isinstance(error, BrokenProcessPool | CancelledError)
                if not gone and "shutdown" not in str(error):
                    raise
                self._drop(name, pool)
        if len(rows) == 1:
            return [Called(None, "the worker process died on it (killed, or out of memory)")], []
        both = [self.call(number, [row]) for row in rows]
        return [one for called, _ in both for one in called], [e for _, some in both for e in some]

    def pids(self) -> list[int]:
        """Of the processes that run now."""
        with self._lock:
            return [pid for pool in self._pools.values() for pid in (pool._processes or {})]

    def close(self) -> None:
        with self._lock:
            for pool in self._pools.values():
                pool.shutdown(cancel_futures=True)

    def _pool(self, name: str, size: int) -> ProcessPoolExecutor:
        with self._lock:
            if name not in self._pools:
                # A file is loaded anew; stages that were made in a program go as they are.
                told = self._pipeline.origin or dataclasses.replace(self._pipeline)
                self._pools[name] = ProcessPoolExecutor(
                    size,
                    multiprocessing.get_context("spawn"),
                    initializer=_begin,
                    initargs=(told,),
                )
            return self._pools[name]

    def _drop(self, name: str, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pools.get(name) is pool:
                del self._pools[name]
        pool.shutdown(wait=False, cancel_futures=True)


_stages: Sequence[Any] = ()  # of this worker process
_started: set[int] = set()


def _begin(told: str | Pipeline) -> None:
    global _stages
    # Ctrl-C in a terminal reaches all processes: the driver's is the one that counts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _stages = (load(told) if isinstance(told, str) else told).stages


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _called(number: int, rows: list[Fields]) -> tuple[list[Called], list[tuple]]:
    stage = _stages[number]
    if stage.place != "worker":
        return [call_one(stage, row) for row in rows], []
    if number not in _started:
        stage.start()
        _started.add(number)
    if hasattr(stage, "batch"):
        return call_batch(stage, rows), []
    tally = Tally()
    return gather(stage, rows, tally), tally.entries
