"""What has been paid for stays: results of cached stages by content, and the ledger of calls.

One SQLite file for each process that writes (`answers.sqlite`, or `answers-NAME.sqlite` of one of
many), to which rows are only added; a result is there, whole, as soon as `put` returns, whatever is
killed then. Files of other writers are read, too. The memory that is used does not grow with the
number of results.

A result that is being computed is not computed a second time: `claim` says whose turn it is.

The ledger holds, for each stage and model, calls, tokens and cost, and how many attempts failed of
what; it counts what was paid, also for answers that were of no use.
Raises `UserError` where the folder cannot be written to, and `QuotaReached`.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from capjax.errors import UserError

_TABLES = """
create table if not exists answers (key text primary key, stage text, value text) without rowid;
create table if not exists paid (stage text, model text, calls integer, prompt_tokens integer,
  completion_tokens integer, cost real, primary key (stage, model)) without rowid;
create table if not exists failures (stage text, kind text, count integer,
  primary key (stage, kind)) without rowid;
"""
_AT_ONCE = 500  # keys in one question


class QuotaReached(Exception):
    """No further call may be paid."""


@dataclasses.dataclass(frozen=True)
class Quota:
    """The most that may be paid in all, earlier runs on the same cache included; None: no limit.

    Calls stop exactly there; tokens and cost, which are known after a call, go beyond it by the
    calls under way at most.
    """

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None


NO_QUOTA = Quota()


class Paid(NamedTuple):
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Claim(NamedTuple):
    """Of some keys: what is known, what the caller is to compute, and what others compute."""

    known: dict[str, Any]
    mine: set[str]
    theirs: dict[str, Future]


class Cache:
    """The results and the ledger in `directory`; safe to share between threads.

    writer: this process's name where several write at once.
    """

    def __init__(self, directory: Path | str, quota: Quota = NO_QUOTA, writer: str = ""):
        self.directory, self.quota = Path(directory), quota
        path = self.directory / (f"answers-{writer}.sqlite" if writer else "answers.sqlite")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._own = _connect(path)
            others = sorted(self.directory.glob("answers*.sqlite"))
            self._others = [_connect(other) for other in others if other != path]
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"cannot use the cache {str(directory)!r}: {error}") from error
        self._lock = threading.RLock()
        self._under_way: dict[str, Future] = {}
        self._reserved = 0
        before = [Paid(*row) for database in self._all for row in database.execute(_SUM)]
        self._before = Paid(*(sum(column) for column in zip(*before, strict=True)))
        self._now = Paid()

    @property
    def _all(self) -> list[sqlite3.Connection]:
        return [self._own, *self._others]

    def claim(self, keys: Iterable[str]) -> Claim:
        """What to do about these keys; each of `mine` must be settled or released."""
        wanted = list(dict.fromkeys(keys))
        with self._lock:
            known = self._find(wanted)
            theirs = {key: self._under_way[key] for key in wanted if key in self._under_way}
            mine = {key for key in wanted if key not in known and key not in theirs}
            self._under_way.update({key: Future() for key in mine})
        return Claim(known, mine, {key: f for key, f in theirs.items() if key not in known})

    def put(self, key: str, stage: str, value: Any) -> None:
        """Keeps a result, for good, and tells those who wait for it."""
        text = json.dumps(value, ensure_ascii=True, allow_nan=False)
        with self._lock:
            self._own.execute("insert or ignore into answers values (?, ?, ?)", (key, stage, text))
            waiting = self._under_way.pop(key, None)
        if waiting is not None:
            # What is read back, so that a result is the same whether it was kept or not.
            waiting.set_result(json.loads(text))

    def release(self, keys: Iterable[str], error: BaseException) -> None:
        """Gives up keys that were claimed: those who wait get the error."""
        for key in keys:
            with self._lock:
                waiting = self._under_way.pop(key, None)
            if waiting is not None:
                waiting.set_exception(error)

    def reserve(self) -> None:
        """Asks for one more call; raises QuotaReached, or else `paid` or `unpaid` must follow."""
        with self._lock:
            paid, quota = self.total, self.quota
            reached = (
                (quota.calls is not None and paid.calls + self._reserved >= quota.calls)
                or (quota.tokens is not None and paid.tokens >= quota.tokens)
                or (quota.cost is not None and paid.cost >= quota.cost)
            )
            if reached:
                raise QuotaReached(
                    f"{paid.calls:,} calls, {paid.tokens:,} tokens, cost {paid.cost:.2f}"
                )
            self._reserved += 1

    def paid(
        self, stage: str, model: str, prompt_tokens: int, completion_tokens: int, cost: float
    ) -> None:
        """One call that was answered."""
        new = Paid(1, prompt_tokens, completion_tokens, cost)
        with self._lock:
            self._reserved = max(self._reserved - 1, 0)
            self._now = Paid(*(a + b for a, b in zip(self._now, new, strict=True)))
            self._own.execute(_ADD_PAID, (stage, model, *new))

    def unpaid(self) -> None:
        """A reserved call that was never answered."""
        with self._lock:
            self._reserved = max(self._reserved - 1, 0)

    def failed(self, stage: str, kind: str, count: int = 1) -> None:
        """An attempt that came to nothing, or an answer that was of no use."""
        with self._lock:
            self._own.execute(_ADD_FAILURE, (stage, kind, count))

    @property
    def total(self) -> Paid:
        """What was paid, by earlier runs too."""
        return Paid(*(a + b for a, b in zip(self._before, self._now, strict=True)))

    def ledger(self) -> dict[str, Any]:
        """{"paid": {stage: {model: Paid}}, "failures": {stage: {kind: count}}, "answers": n}"""
        paid: dict[str, dict[str, Paid]] = {}
        failures: dict[str, dict[str, int]] = {}
        answers = 0
        with self._lock:
            for database in self._all:
                for stage, model, *row in database.execute("select * from paid"):
                    held = paid.setdefault(stage, {})
                    both = zip(held.get(model, Paid()), row, strict=True)
                    held[model] = Paid(*(a + b for a, b in both))
                for stage, kind, count in database.execute("select * from failures"):
                    kinds = failures.setdefault(stage, {})
                    kinds[kind] = kinds.get(kind, 0) + count
                answers += database.execute("select count(*) from answers").fetchone()[0]
        return {"paid": paid, "failures": failures, "answers": answers}

    def close(self) -> None:
        with self._lock:
            for database in self._all:
                database.close()

    def _find(self, keys: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for database in self._all:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                question = f"select key, value from answers where key in ({marks})"
                found |= {key: json.loads(text) for key, text in database.execute(question, some)}
        return found


_SUM = (
    "select coalesce(sum(calls), 0), coalesce(sum(prompt_tokens), 0), "
    "coalesce(sum(completion_tokens), 0), coalesce(sum(cost), 0.0) from paid"
)
_ADD_PAID = (
    "insert into paid values (?, ?, ?, ?, ?, ?) on conflict do update set calls = calls + "
    "excluded.calls, prompt_tokens = prompt_tokens + excluded.prompt_tokens, completion_tokens = "
    "completion_tokens + excluded.completion_tokens, cost = cost + excluded.cost"
)
_ADD_FAILURE = (
    "insert into failures values (?, ?, ?) on conflict do update set count = count + excluded.count"
)


def _connect(path: Path) -> sqlite3.Connection:
    # Each statement is a transaction of its own. The write-ahead log outlives a killed process;
    # NORMAL waits for no disk, so that a power cut, and nothing less, may cost the last answers.
    database = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=normal")
    database.executescript(_TABLES)
    return database
