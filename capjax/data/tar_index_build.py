"""The indices of many tar shards: those that are kept and still fit, and the others built anew.

An index is kept beside its tar as `<tar>.index`, or in a folder of its own, which also serves
tars at URLs. Where it cannot be written it lives in memory, with a warning.

Indices are built in processes, which share no lock and no memory with this one: they are started
as programs, not by `multiprocessing`, whose children would first run the user's own script once
more, and which the worker processes of a loader may not use. Few or small tars, and tars where no
process can be started, are read by threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

from tqdm import tqdm

from capjax.data import tar_index
from capjax.data.files import is_remote
from capjax.data.tars import refuse_compressed
from capjax.errors import UserError

log = logging.getLogger(__name__)

_INDEX_NAME = re.compile(r"\.index(\.[^/]*)?$")
_MAX_PROCESSES = 16
_WORTH_PROCESSES = 1 << 31  # bytes of tars: half a second's work, as long as processes take to come


class Kept(NamedTuple):
    """An index: its header, and its file or, where it could not be written, all its bytes."""

    header: tar_index.Header
    place: str | bytes


def open_indices(
    files: Sequence[Any], index_dir: str | None = None, processes: int | None = None
) -> list[Kept]:
    """The index of each file (`path`, `size`, `read(offset, size)`), built where there is none.

    processes: how many build; 0 for threads; by default as many as there are cores, if that pays.

    Raises `UserError` for a compressed tar and for one that cannot be read.
    """
    if processes is not None and processes < 0:
        raise UserError(f"{processes} processes cannot build indices; 0 is for threads")
    if index_dir is not None:
        try:
            os.makedirs(index_dir, exist_ok=True)
        except OSError as error:
            raise UserError(f"index_dir {index_dir!r} cannot be made: {error.strerror}") from None
    found: list[Kept | None] = []
    for file in files:
        path = index_path(file.path, index_dir)
        header = tar_index.read_header(path) if path else None
        fits = header is not None and _is_of(header, file)
        found.append(Kept(header, path) if fits else None)
    missing = [number for number, kept in enumerate(found) if kept is None]
    if not missing:
        return found
    tasks = [(files[n], index_path(files[n].path, index_dir)) for n in missing]
    problems = []
    for number, (kept, problem) in zip(missing, _build_all(tasks, processes), strict=True):
        found[number] = kept
        problems += [problem] if problem else []
    if problems:
        log.warning(
            "the indices of %s tars are built anew each time: %s; name a folder with index_dir",
            f"{len(problems):,}",
            problems[0],
        )
    return found


def index_path(path: str, index_dir: str | None) -> str | None:
    """Where the index of the tar at `path` is kept; None for a URL without an `index_dir`."""
    if index_dir is None:
        return None if is_remote(path) else path + ".index"
    whole = path if is_remote(path) else os.path.abspath(path)
    # Tars of different folders may have the same name.
    digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:12]
    return os.path.join(index_dir, f"{os.path.basename(path)}-{digest}.index")


def is_index(path: str) -> bool:
    """Whether the name is that of an index, or of what was left of one."""
    return _INDEX_NAME.search(path) is not None


def build(file: Any, path: str | None) -> tuple[bytes | None, str]:
    """Builds one index and keeps it at `path`: (None, ""), or (the index, why it is not kept)."""
    refuse_compressed(file)
    index = tar_index.build(file)
    if path is None:
        return index, f"beside {file.path} nothing can be written"
    try:
        tar_index.write(path, index)
    except UserError as error:
        return index, str(error)
    return None, ""


def serve() -> None:
    """The program of a building process: tasks come by standard input, replies go out."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between the replies
    while True:
        try:
            file, path = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply = build(file, path)
        except UserError as error:
            reply = str(error)
        pickle.dump(reply, output)
        output.flush()


def _is_of(header: tar_index.Header, file: Any) -> bool:
    return header.tar == os.path.basename(file.path) and header.stamp == tar_index.stamp_of(file)


def _build_all(tasks: list[tuple[Any, str | None]], processes: int | None) -> list:
    """[(kept, problem or "")] in the order of the tasks."""
    total = sum(file.size for file, _ in tasks)
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        processes = min(processes, _MAX_PROCESSES) if total >= _WORTH_PROCESSES else 0
    count = max(1, min(processes or 4, len(tasks)))
    workers = [_Worker() for _ in range(count)] if processes else []
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)
    stop = threading.Event()

    def run(task: tuple[Any, str | None]) -> tuple[Kept, str]:
        reply = None
        if workers:
            worker = idle.get()
            try:
                reply = worker.ask(task)
            finally:
                idle.put(worker)
        if stop.is_set():
            raise UserError("interrupted")
        if reply is None:  # no such process, or one that was killed: for want of memory, say
            reply = build(*task)
        if isinstance(reply, str):
            raise UserError(reply)
        index, problem = reply
        file, path = task
        if index is None:
            header = tar_index.read_header(path)
            if header is not None and _is_of(header, file):
                return Kept(header, path), ""
            # Somebody removed it, or writes the index of another version in the same place.
            index, problem = tar_index.build(file), f"{path} does not stay as it was written"
        name, stamp = os.path.basename(file.path), tar_index.stamp_of(file)
        return Kept(tar_index.ShardIndex(index, name, stamp).header, index), problem

    pool = ThreadPoolExecutor(count)
    # disable=None: no bar where nobody watches.
    bar = tqdm(total=total, desc="indexing tars", unit="B", unit_scale=True, delay=3, disable=None)
    try:
        with bar:
            futures = {pool.submit(run, task): task for task in tasks}
            for future in as_completed(futures):
                future.result()
                bar.update(futures[future][0].size)
        return [future.result() for future in futures]
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.end()
        pool.shutdown()


class _Worker:
    """A building process, started when its first task comes."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._usable = True

    def ask(self, task: tuple[Any, str | None]) -> tuple[bytes | None, str] | str | None:
        """What `build` returns, the text of its `UserError`, or None where no answer comes."""
        try:
            if self._process is None and self._usable:
                self._process = self._start()
            if not self._usable:
                return None
            pickle.dump(task, self._process.stdin)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            self._usable = False
            return None

    def end(self) -> None:
        self._usable = False
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(OSError):  # what it was not yet told
                self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()

    def _start(self) -> subprocess.Popen:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        return subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is ours to handle: we end them
        )
