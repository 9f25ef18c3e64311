"""Records through stages: some at a time, in order, with what is kept by content and what failed.

    source record --> stage --> none, one or several --> stage --> ...
                        |
                        cache: results of the same stage on the same fields

Letters: n records of a chunk.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from capjax.curate.cache import Cache
from capjax.curate.calls import Called, call_async, call_batch, call_one, gather
from capjax.curate.content import content_key, stage_key
from capjax.curate.pipeline import Pipeline
from capjax.curate.stage import Fields
from capjax.curate.workers import Tally, Workers


class Item(NamedTuple):
    """A record on its way: its place in the source and its fields so far."""

    index: int
    fields: dict[str, Any]


class Bad(NamedTuple):
    """A record that is left out, and where."""

    index: int
    key: str
    stage: str
    reason: str


class Flow:
    """Calls stages for one process. processes=0: everything in this process, as an engine that
    has processes of its own wants it.
    """

    def __init__(self, pipeline: Pipeline, cache: Cache, processes: int, threads: int):
        self.pipeline, self.cache = pipeline, cache
        self.keys = [stage_key(stage) for stage in pipeline.stages]
        self.workers = Workers(pipeline, processes) if processes else None
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="stage")
        self._here_started: set[int] = set()
        self._start_lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._loop_thread.start()

    def through(
        self, items: list[Item], first: int, stages: Sequence[Any]
    ) -> tuple[list[Item], list[Bad], Counter]:
        """The items behind the stages, the bad ones, and counts {(stage, "in" | "out" | "bad")}."""
        bad: list[Bad] = []
        counts: Counter = Counter()
        for number, stage in enumerate(stages, first):
            counts[stage.name, "in"] += len(items)
            inputs = tuple(stage.inputs)
            rows = [{field: item.fields[field] for field in inputs} for item in items]
            after: list[Item] = []
            for item, called in zip(items, self._call(number, stage, rows), strict=True):
                if called.results is None:
                    bad.append(Bad(item.index, item.fields["key"], stage.name, called.reason))
                    counts[stage.name, "bad"] += 1
                else:
                    after += [Item(item.index, item.fields | own) for own in called.results]
            items = after
            counts[stage.name, "out"] += len(items)
        return items, bad, counts

    def abort(self) -> None:
        """Gives up all calls under way, which may wait for long."""
        self._loop.call_soon_threadsafe(
            lambda: [task.cancel() for task in asyncio.all_tasks(self._loop)]
        )

    def close(self) -> None:
        if self.workers:
            self.workers.close()
        for stage in self.pipeline.stages:
            if hasattr(stage, "close"):
                asyncio.run_coroutine_threadsafe(stage.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop_thread.join(10)
        self._threads.shutdown(cancel_futures=True)

    def _call(self, number: int, stage: Any, rows: list[Fields]) -> list[Called]:
        if not rows:
            return []
        if not stage.cached:
            return self._run(number, stage, rows, None)
        keys = [content_key(self.keys[number], row) for row in rows]
        claim = self.cache.claim(keys)
        called = {key: Called(results) for key, results in claim.known.items()}
        mine: dict[str, Fields] = {}
        for key, row in zip(keys, rows, strict=True):
            if key in claim.mine:
                mine.setdefault(key, row)
        try:
            done = self._run(number, stage, list(mine.values()), list(mine))
            called |= dict(zip(mine, done, strict=True))
            for key, one in zip(mine, done, strict=True):
                if one.results is not None:
                    self.cache.put(key, stage.name, one.results)
                else:
                    self.cache.release([key], _Failed(one.reason))
        except BaseException as error:
            self.cache.release(mine, error)
            raise
        # Only now: whoever waits for another must not hold what the other waits for.
        for key, future in claim.theirs.items():
            try:
                called[key] = Called(future.result())
            except _Failed as error:
                called[key] = Called(None, str(error))
        return [called[key] for key in keys]

    def _run(
        self, number: int, stage: Any, rows: list[Fields], keys: list[str] | None
    ) -> list[Called]:
        if stage.place == "here":
            return [call_one(stage, row) for row in rows]
        if stage.place == "threads":
            return list(self._threads.map(lambda row: call_one(stage, row), rows))
        if stage.place == "server":
            return self._from_server(stage, rows, keys)
        if self.workers is not None:
            called, entries = self.workers.call(number, rows)
            for kind, *entry in entries:
                getattr(self.cache, kind)(*entry)
            return called
        if stage.place == "processes":
            return [call_one(stage, row) for row in rows]
        return self._by_model_here(number, stage, rows)

    def _from_server(self, stage: Any, rows: list[Fields], keys: list[str] | None) -> list[Called]:
        async def one(place: int, row: Fields) -> Called:
            called = await call_async(stage, row, self.cache)
            if keys is not None and called.results is not None:
                # At once, and not when the chunk is done: what is paid for is kept.
                self.cache.put(keys[place], stage.name, called.results)
            return called

        async def all_of_them() -> list[Called]:
            tasks = [asyncio.ensure_future(one(i, row)) for i, row in enumerate(rows)]
            # All are waited for, so that answers under way when one stops the run are kept.
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for found in done:
                if isinstance(found, BaseException):
                    raise found
            return done

        return asyncio.run_coroutine_threadsafe(all_of_them(), self._loop).result()

    def _by_model_here(self, number: int, stage: Any, rows: list[Fields]) -> list[Called]:
        with self._start_lock:  # one at a time, as in a process of its own
            if number not in self._here_started:
                stage.start()
                self._here_started.add(number)
            if hasattr(stage, "batch"):
                return call_batch(stage, rows)
            tally = Tally()
            called = gather(stage, rows, tally)
        for kind, *entry in tally.entries:
            getattr(self.cache, kind)(*entry)
        return called


class _Failed(Exception):
    """What another record with the same fields was left out for."""


Through = Callable[[list[Item], int, Sequence[Any]], tuple[list[Item], list[Bad], Counter]]
