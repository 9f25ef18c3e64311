"""Checkpoints of a run: parameters, optimiser, moving average and data position of one step.

Orbax writes each step to a temporary directory and renames it once it is complete, so a run that
is killed while saving leaves the steps before it, and what is half-written is never seen. What is
to go gets another name first, for the same reason: a step that is seen is whole. A step holds the
items `params`, `ema` and `task` (what the task carries) where there are, `optimizer` (with the
step) and `host`, plain JSON; reading `params` alone reads nothing else.

`save_async` returns once the arrays are copied from the devices, so the state may be donated to
the next step at once; writing goes on in a thread. On disk are never more than the steps that the
policy (`capjax.retention`) keeps, and one more: the one being written, or just written.

With several processes all write their parts, and process 0 alone deletes.

Raises `UserError` when there is no checkpoint, it cannot be written, or it does not fit the model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from capjax.errors import UserError
from capjax.parallel.sharding import named_leaves
from capjax.retention import Policy

_DELETED = ".deleted"  # behind the name of a step that is being removed
_UNFINISHED = ".orbax-checkpoint-tmp"  # in Orbax's name for a step that is being written


class Checkpoints:
    """The checkpoints under `directory`, of which `policy` says which stay; a context manager.

    `policy` may be a number: so many of the last ones. With `writer=False` nothing is created,
    cleaned up or deleted: for reading beside a run.
    """

    def __init__(self, directory: Path | str, policy: Policy | int = 1, writer: bool = False):
        self.directory = Path(directory).resolve()
        self.policy = Policy(policy) if isinstance(policy, int) else policy
        self._writing: _Writing | None = None
        if not writer:
            if not self.directory.is_dir():
                raise UserError(f"there is no checkpoint under {str(self.directory.parent)!r}")
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                self._clean(self.policy)
        except OSError as error:
            raise UserError(f"cannot write to {str(directory)!r}: {error.strerror}") from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.wait()
        elif self._writing:
            self._writing.join()  # what stops the program is what it should tell of

    @property
    def steps(self) -> list[int]:
        """The complete ones, oldest first."""
        names = (path.name for path in self.directory.iterdir() if path.is_dir())
        return sorted(int(name) for name in names if re.fullmatch(r"\d+", name))

    @property
    def latest(self) -> int | None:
        """The newest complete step; of several processes, that which process 0 sees."""
        latest = max(self.steps, default=None)
        if jax.process_count() == 1:
            return latest
        from jax.experimental import multihost_utils

        seen = multihost_utils.broadcast_one_to_all(-1 if latest is None else latest)
        return None if seen < 0 else int(seen)

    def save(self, step: int, state: dict[str, Any], host: dict[str, Any]) -> None:
        """Writes a step and returns when it is on disk; `host` is JSON, restored as it is."""
        self.save_async(step, state, host)
        self.wait()

    def save_async(
        self,
        step: int,
        state: dict[str, Any],
        host: dict[str, Any],
        values: Mapping[int, float] | None = None,
    ) -> None:
        """Begins to write a step; once this returns, the state's buffers may be used again.

        `values`, the metric by step, are what the policy goes by from now on. Raises UserError for
        the save before, if that has failed.
        """
        items = {
            "params": state["params"],
            "optimizer": {"step": state["step"], "opt_state": state["opt_state"]},
            "host": host,
        }
        items |= {name: state[name] for name in ("ema", "task") if name in state}
        if values is not None:
            self.policy = dataclasses.replace(self.policy, values=dict(values))
        self._save(step, items)

    def save_params(self, step: int, params: Any, host: dict[str, Any]) -> None:
        """Writes a step from which nothing but the parameters can be restored."""
        self._save(step, {"params": params, "host": host})
        self.wait()

    def check(self) -> None:
        """Raises UserError if the save in progress has failed; does not wait for it."""
        if self._writing and not self._writing.is_alive():
            self.wait()

    def wait(self) -> None:
        """Returns when all is on disk; UserError if it could not be written."""
        writing, self._writing = self._writing, None
        if writing:
            writing.join()
            if writing.error is not None:
                raise self._cannot_save(writing.step, writing.error) from writing.error

    def _save(self, step: int, items: dict[str, Any]) -> None:
        self.wait()
        if step in self.steps:
            raise UserError(f"step {step} is there already under {str(self.directory)!r}")
        context = _orbax().Context()
        # Replicas that share the writing cut every array up, and a program is compiled for each
        # cut: worth it where several hosts write, and hundreds of compilations on one.
        context.array.saving.use_replica_parallel = jax.process_count() > 1
        try:
            with context:
                response = _orbax().save_checkpointables_async(self.directory / str(step), items)
        except (OSError, ValueError) as error:
            self._make_room()
            raise self._cannot_save(step, error) from error
        self._writing = _Writing(self, step, self.policy, response)

    def _cannot_save(self, step: int, error: BaseException) -> BaseException:
        """The user's mistake behind a save that failed, or the error itself if it is none."""
        # A full disk comes as TensorStore's ValueError, "RESOURCE_EXHAUSTED: ...".
        text = isinstance(error, ValueError) and re.match(r"[A-Z_]+: ", str(error))
        if not isinstance(error, OSError) and not text:
            return error
        before = max(self.steps, default=None)
        intact = f"the one of step {before} is intact" if before is not None else "there is none"
        return UserError(
            f"cannot save step {step} under {str(self.directory)!r}; of the checkpoints before it "
            f"{intact}; make room and start the run again ({_reason(error)})"
        )

    def _make_room(self) -> None:
        """Removes what a save that failed has left, which may have filled the disk."""
        if jax.process_index() == 0:
            with contextlib.suppress(OSError):
                self._clean(None)

    def _clean(self, policy: Policy | None) -> None:
        """Removes what was left half-written or half-deleted, and what the policy does not keep."""
        for step in set(self.steps) - policy.kept(self.steps) if policy else ():
            path = self.directory / str(step)
            path.rename(path.with_name(path.name + _DELETED))
        for path in self.directory.iterdir():
            if path.name.endswith(_DELETED) or _UNFINISHED in path.name:
                shutil.rmtree(path)

    def restore(self, abstract: dict[str, Any], step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """(state, host) of a step, laid out as the shapes and shardings in `abstract` say."""
        wanted = {
            "params": abstract["params"],
            "optimizer": {"step": abstract["step"], "opt_state": abstract["opt_state"]},
            "host": None,
        }
        more = [name for name in ("ema", "task") if name in abstract]
        items = self._load(wanted | {name: abstract[name] for name in more}, step)
        state = {"params": items["params"], **items["optimizer"]}
        return state | {name: items[name] for name in more}, items["host"]

    def restore_params(
        self, abstract_params: Any, step: int, use_ema: bool
    ) -> tuple[Any, dict[str, Any]]:
        """(parameters, host) of a step; the moving average if asked for and there is one."""
        name = "ema" if use_ema and "ema" in self._metadata(step) else "params"
        items = self._load({name: abstract_params, "host": None}, step)
        return items[name], items["host"]

    def shapes(self, step: int) -> dict[str, Any]:
        """Name -> shape and type of each parameter of a step, without reading an array."""
        return named_leaves(self._metadata(step)["params"])

    def restore_some(self, abstract_params: Any, step: int) -> Any:
        """Those parameters of a step that the tree names, and no others."""
        context = _orbax().Context()
        context.pytree.loading.partial_load = True
        with context:
            return self._load({"params": abstract_params}, step, some=True)["params"]

    def _load(self, wanted: dict[str, Any], step: int, some: bool = False) -> dict[str, Any]:
        saved = self._metadata(step)
        for name in wanted:
            if name in ("params", "host") and name not in saved:
                raise self._damaged(step, f"it holds no {name!r}")
            if name not in saved:
                raise UserError(f"the checkpoint of step {step} holds no {name!r}")
        for name in wanted.keys() & {"params", "ema"} if not some else ():
            self._check(saved[name], wanted[name], step)
        try:
            return _orbax().load_checkpointables(self.directory / str(step), wanted)
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(step, _reason(error)) from error

    def _metadata(self, step: int) -> dict[str, Any]:
        """Item -> tree of shapes, without reading an array."""
        if step not in self.steps:
            there = ", ".join(map(str, self.steps)) or "none"
            raise UserError(
                f"there is no checkpoint of step {step} under {str(self.directory)!r}; "
                f"there are: {there}"
            )
        try:
            items = _orbax().checkpointables_metadata(self.directory / str(step)).metadata
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(step, _reason(error)) from error
        for name in items.keys() & {"params", "ema"}:
            if items[name] is None:  # Orbax's way to say that it cannot read them
                raise self._damaged(step, f"{name} cannot be read")
        return items

    def _damaged(self, step: int, reason: str) -> UserError:
        before = max((other for other in self.steps if other < step), default=None)
        remedy = f"from step {before}" if before is not None else "without it: it is the only one"
        return UserError(
            f"the checkpoint {str(self.directory / str(step))!r} is damaged: remove it to go on "
            f"{remedy} ({reason})"
        )

    def _check(self, saved: Any, wanted: Any, step: int) -> None:
        """Raises UserError that names the first parameter which differs in name or shape."""
        before = {name: tuple(leaf.shape) for name, leaf in named_leaves(saved).items()}
        after = {name: tuple(leaf.shape) for name, leaf in named_leaves(wanted).items()}
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                raise UserError(
                    f"the checkpoint of step {step} under {str(self.directory)!r} does not fit the "
                    f"model: parameter {name!r} has shape {before.get(name, 'none')} there and "
                    f"{after.get(name, 'none')} in the config"
                )


class _Writing(threading.Thread):
    """Waits for one save and then removes what is no longer kept; `error` is what went wrong."""

    def __init__(self, checkpoints: Checkpoints, step: int, policy: Policy, response: Any):
        super().__init__(name=f"checkpoint {step}")
        self.step, self.error = step, None
        self._checkpoints, self._policy, self._response = checkpoints, policy, response
        self.start()

    def run(self) -> None:
        try:
            self._response.result()
            if jax.process_index() == 0:
                self._checkpoints._clean(self._policy)
        except BaseException as error:
            self.error = error
            self._checkpoints._make_room()


def _orbax() -> Any:
    """Orbax, with what it logs of errors that it also raises kept off the terminal.

    Imported here: commands that restore nothing (--help, metrics) need not wait for it.
    """
    from orbax.checkpoint import v1

    logging.getLogger("absl").addFilter(_not_of_orbax)
    return v1


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts


def _reason(error: Exception) -> str:
    """The first line of a message, without end."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def replicated(shapes: Any, sharding: jax.sharding.Sharding) -> Any:
    """A tree of shapes with one sharding for all: what `restore_params` restores into."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)
