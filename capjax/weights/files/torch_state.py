"""The state dict in what a PyTorch file held: that dict, a dict around it, or a script module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capjax.errors import UserError
from capjax.weights.files.pickles import Instance
from capjax.weights.files.torch_pickles import Tensor

PARALLEL = "module."  # DataParallel's wrapper, before all of a model's names
WRAPPERS = ("state_dict", "model", "module")  # keys under which training loops keep it
# Modules may be shared, so that a small hostile file can nest them without end.
MAX_ATTRIBUTES = 1_000_000
MAX_PREFIX = 1_000


def names_of_state(root: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name, without a prefix that all of them have from DataParallel.

    Raises:
      UserError: it holds no tensors by name.
    """
    found = _of_module(root, path) if type(root) is Instance else _of_dict(root)
    if not found:
        raise UserError(
            f"{str(path)!r} holds no tensors by name: save the model's state_dict() alone"
        )
    if all(name.startswith(PARALLEL) for name in found):
        found = {name.removeprefix(PARALLEL): tensor for name, tensor in found.items()}
    return found


def _of_dict(root: Any) -> dict[str, Tensor]:
    """Only tensors of the dict itself: what else training loops keep there is no weight."""
    for _ in WRAPPERS:
        inner = [root[key] for key in WRAPPERS if isinstance(root, dict) and key in root]
        root = next((value for value in inner if isinstance(value, dict)), root)
    if not isinstance(root, dict):
        return {}
    return {k: v for k, v in root.items() if type(k) is str and type(v) is Tensor}


def _of_module(root: Instance, path: Path) -> dict[str, Tensor]:
    """Attributes of nested modules, `visual.conv1.weight`; a shared module under each name."""
    found: dict[str, Tensor] = {}
    waiting = [("", root)]
    seen = 0
    while waiting:
        prefix, module = waiting.pop()
        seen += len(module.attributes) + 1
        if seen > MAX_ATTRIBUTES or len(prefix) > MAX_PREFIX:
            raise UserError(
                f"{str(path)!r} nests modules without end and was refused: download it again"
            )
        inner = []
        for name, value in module.attributes.items():
            if type(value) is Tensor:
                found[f"{prefix}{name}"] = value
            elif type(value) is Instance:
                inner.append((f"{prefix}{name}.", value))
        waiting += reversed(inner)  # the last is the next
    return found
