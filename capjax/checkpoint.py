"""Checkpoints of a run: parameters, optimiser, moving average and data position of one step.

Orbax writes each step to a temporary directory and renames it once it is complete, so a run that
is killed while saving leaves the steps before it, and what is half-written is never seen. A step
holds the items `params`, `ema` (if there is one), `optimizer` (with the step) and `host`, plain
JSON; reading `params` alone reads nothing else.

Raises `UserError` when there is no checkpoint, it cannot be written, or it does not fit the model.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from capjax.errors import UserError
from capjax.parallel.sharding import named_leaves


class Checkpoints:
    """The checkpoints under `directory`, of which the last `keep` stay; a context manager.

    With `writer=False` nothing is created, cleaned up or deleted: for reading beside a run.
    """

    def __init__(self, directory: Path | str, keep: int = 1, writer: bool = False):
        # Imported here: commands that restore nothing (--help, metrics) need not wait for it.
        from orbax.checkpoint import v1 as ocp

        self.directory = Path(directory).resolve()
        if not writer and not self.directory.is_dir():
            raise UserError(f"there is no checkpoint under {str(self.directory.parent)!r}")
        try:
            self._checkpointer = ocp.training.Checkpointer(
                self.directory,
                preservation_policy=ocp.training.preservation_policies.LatestN(keep),
                cleanup_tmp_directories=writer,
            )
        except OSError as error:
            raise UserError(f"cannot write to {str(directory)!r}: {error.strerror}") from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        with _unlogged():  # of a save that failed it has been said
            self._checkpointer.close()

    @property
    def steps(self) -> list[int]:
        """The complete ones, oldest first."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    @property
    def latest(self) -> int | None:
        """The newest complete step."""
        return max(self.steps, default=None)

    def save(self, step: int, state: dict[str, Any], host: dict[str, Any]) -> None:
        """Writes a step and returns when it is on disk; `host` is JSON, restored as it is."""
        items = {
            "params": state["params"],
            "optimizer": {"step": state["step"], "opt_state": state["opt_state"]},
            "host": host,
        }
        if "ema" in state:
            items["ema"] = state["ema"]
        self._save(step, items)

    def save_params(self, step: int, params: Any, host: dict[str, Any]) -> None:
        """Writes a step from which nothing but the parameters can be restored."""
        self._save(step, {"params": params, "host": host})

    def _save(self, step: int, items: dict[str, Any]) -> None:
        from orbax.checkpoint import v1 as ocp

        context = ocp.Context()
        # Replicas that share the writing cut every array up, and a program is compiled for each
        # cut: worth it where several hosts write, and hundreds of compilations on one.
        context.array.saving.use_replica_parallel = jax.process_count() > 1
        try:
            with _unlogged(), context:
                saved = self._checkpointer.save_checkpointables(step, items, force=True)
        except (OSError, ValueError) as error:
            # A full disk comes as TensorStore's ValueError, "RESOURCE_EXHAUSTED: ...".
            if isinstance(error, ValueError) and not re.match(r"[A-Z_]+: ", str(error)):
                raise
            raise UserError(
                f"cannot save step {step} under {str(self.directory)!r}; the checkpoints before it "
                f"are intact; make room and start the run again ({_reason(error)})"
            ) from error
        if not saved:
            raise UserError(f"step {step} is there already under {str(self.directory)!r}")

    def restore(self, abstract: dict[str, Any], step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """(state, host) of a step, laid out as the shapes and shardings in `abstract` say."""
        wanted = {
            "params": abstract["params"],
            "optimizer": {"step": abstract["step"], "opt_state": abstract["opt_state"]},
            "host": None,
        }
        if "ema" in abstract:
            wanted["ema"] = abstract["ema"]
        items = self._load(wanted, step)
        state = {"params": items["params"], **items["optimizer"]}
        if "ema" in abstract:
            state["ema"] = items["ema"]
        return state, items["host"]

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
        from orbax.checkpoint import v1 as ocp

        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:
            return self._load({"params": abstract_params}, step, some=True)["params"]

    def _load(self, wanted: dict[str, Any], step: int, some: bool = False) -> dict[str, Any]:
        saved = self._metadata(step)
        for name in wanted:
            if name not in saved:
                raise UserError(f"the checkpoint of step {step} holds no {name!r}")
        for name in wanted.keys() & {"params", "ema"} if not some else ():
            self._check(saved[name], wanted[name], step)
        try:
            with _unlogged():
                return self._checkpointer.load_checkpointables(step, wanted)
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
            with _unlogged():
                items = self._checkpointer.checkpointables_metadata(step).metadata
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(step, _reason(error)) from error
        for name in items.keys() & {"params", "ema"}:
            if items[name] is None:  # Orbax's way to say that it cannot read them
                raise self._damaged(step, f"{name} cannot be read")
        return items

    def _damaged(self, step: int, reason: str) -> UserError:
        return UserError(
            f"the checkpoint {str(self.directory / str(step))!r} is damaged: remove it to go on "
            f"from the one before it ({reason})"
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


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Keeps the tracebacks that Orbax logs of what it also raises off the terminal."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """The first line of a message, without end."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def replicated(shapes: Any, sharding: jax.sharding.Sharding) -> Any:
    """A tree of shapes with one sharding for all: what `restore_params` restores into."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)
