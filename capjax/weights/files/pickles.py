"""A reader of pickles that can build numbers, texts, tuples, lists and dicts, and nothing else.

Python's own unpickler imports and calls what a pickle names, and hands the pickle live objects to
change. Here a name is only ever looked up through `resolve`, which answers with a `Name` of its
caller's own or raises; instances are inert `Instance`s. Opcodes that checkpoints do not need are
refused, and each does work in proportion to the bytes it stands for, so that a small file cannot
fill the memory.

Format: Python's `pickletools`, protocols 2 to 5.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capjax.errors import UserError

MAX_LINE = 1_000  # bytes of a module's or a class's name


class Name:
    """What stands for a class or function that a pickle names.

    `call` takes the arguments of a call and gives its value; None for names that only stand for
    themselves. `value` is for the caller.
    """

    def __init__(self, call: Callable[[tuple], Any] | None = None, value: Any = None):
        self.call = call
        self.value = value


class Instance:
    """An object of which only the attributes are kept."""

    def __init__(self) -> None:
        self.attributes: dict[Any, Any] = {}


class Unpickler:
    """Reads the pickles that stand one after another in `data`.

    Args:
      data: the bytes, or a map of them.
      path: of the file, for errors.
      resolve: from module and name to a `Name`; raises UserError for one that is not allowed.
      persistent: from a persistent id to its object.
    """

    def __init__(
        self,
        data: memoryview,
        path: Path,
        resolve: Callable[[str, str], Name],
        persistent: Callable[[Any], Any],
    ):
        self.data = data
        self.path = path
        self.resolve = resolve
        self.persistent = persistent
        self.at = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The next pickle's value; `at` is then the place behind it.

        Raises:
          UserError: the pickle is damaged, or names or does what is not allowed.
        """
        self.stack, self.below, self.memo = [], [], {}
        try:
            while (opcode := self.take(1)) != pickle.STOP:
                action = ACTIONS.get(opcode)
                if action is None:
                    raise UserError(
                        f"{str(self.path)!r} has the pickle opcode {opcode!r}, which no checkpoint "
                        "of tensors needs, and was refused: convert it to safetensors"
                    )
                action(self)
            return self.stack.pop()
        except UserError:
            raise
        except Exception as error:  # a damaged pickle can be wrong in any way
            raise UserError(
                f"the pickle of {str(self.path)!r} is damaged "
                f"({type(error).__name__} at byte {self.at}): download the file again"
            ) from error

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > len(self.data) - self.at:
            raise EOFError
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def number(self, layout: str) -> Any:
        """The next number, in `struct`'s notation."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        """The text up to the next newline."""
        text = bytes(self.data[self.at : self.at + MAX_LINE])
        self.at += text.index(b"\n") + 1
        return text[: text.index(b"\n")].decode("utf-8")

    def since_mark(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items


def _push(value: Callable[[Unpickler], Any]) -> Callable[[Unpickler], None]:
    return lambda u: u.stack.append(value(u))


def _text(layout: str, encoding: str) -> Callable[[Unpickler], None]:
    return _push(lambda u: u.take(u.number(layout)).decode(encoding))


def _bytes(layout: str) -> Callable[[Unpickler], None]:
    return _push(lambda u: u.take(u.number(layout)))


def _tuple(size: int) -> Callable[[Unpickler], None]:
    def action(u: Unpickler) -> None:
        items = tuple(u.stack[-size:])
        if len(items) != size:
            raise IndexError
        u.stack[-size:] = [items]

    return action


def _tuple_since_mark(u: Unpickler) -> None:
    items = tuple(u.since_mark())  # first: it brings back the stack to push to
    u.stack.append(items)


def _mark(u: Unpickler) -> None:
    u.below.append(u.stack)
    u.stack = []


def _append(u: Unpickler, items: list[Any]) -> None:
    if type(u.stack[-1]) is not list:
        raise TypeError
    u.stack[-1].extend(items)


def _set(u: Unpickler, items: list[Any]) -> None:
    target = u.stack[-1]
    if type(target) is not dict or len(items) % 2:
        raise TypeError
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Tuples are hashed item by item: one that holds itself 60 times over would take for ever.
        if type(key) not in (str, int, float, bool, bytes, type(None)):
            raise TypeError
        target[key] = value


def _two(u: Unpickler) -> list[Any]:
    value, key = u.stack.pop(), u.stack.pop()
    return [key, value]


def _global(u: Unpickler) -> None:
    u.stack.append(u.resolve(u.line(), u.line()))


def _stack_global(u: Unpickler) -> None:
    module, name = _two(u)
    if type(module) is not str or type(name) is not str:
        raise TypeError
    u.stack.append(u.resolve(module, name))


def _call(u: Unpickler) -> None:
    function, arguments = _two(u)
    if type(function) is not Name or function.call is None or type(arguments) is not tuple:
        raise TypeError
    u.stack.append(function.call(arguments))


def _build(u: Unpickler) -> None:
    state, target = u.stack.pop(), u.stack[-1]
    if type(target) is Instance and type(state) is dict:
        target.attributes = state
    elif type(target) not in (Instance, dict):  # of a dict: the versions of a state dict's modules
        raise TypeError


def _remember(u: Unpickler, index: int) -> None:
    u.memo[index] = u.stack[-1]


ACTIONS: dict[bytes, Callable[[Unpickler], None]] = {
    pickle.PROTO: lambda u: u.number("<B"),
    pickle.FRAME: lambda u: u.number("<Q"),
    # numbers and texts
    pickle.NONE: _push(lambda u: None),
    pickle.NEWTRUE: _push(lambda u: True),
    pickle.NEWFALSE: _push(lambda u: False),
    pickle.BININT: _push(lambda u: u.number("<i")),
    pickle.BININT1: _push(lambda u: u.number("<B")),
    pickle.BININT2: _push(lambda u: u.number("<H")),
    pickle.LONG1: _push(lambda u: int.from_bytes(u.take(u.number("<B")), "little", signed=True)),
    pickle.BINFLOAT: _push(lambda u: u.number(">d")),
    pickle.BINUNICODE: _text("<I", "utf-8"),
    pickle.SHORT_BINUNICODE: _text("<B", "utf-8"),
    pickle.BINUNICODE8: _text("<Q", "utf-8"),
    pickle.BINSTRING: _text("<I", "latin-1"),  # texts of Python 2
    pickle.SHORT_BINSTRING: _text("<B", "latin-1"),
    pickle.BINBYTES: _bytes("<I"),
    pickle.SHORT_BINBYTES: _bytes("<B"),
    pickle.BINBYTES8: _bytes("<Q"),
    # containers
    pickle.MARK: _mark,
    pickle.EMPTY_TUPLE: _push(lambda u: ()),
    pickle.EMPTY_LIST: _push(lambda u: []),
    pickle.EMPTY_DICT: _push(lambda u: {}),
    pickle.TUPLE: _tuple_since_mark,
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.APPEND: lambda u: _append(u, [u.stack.pop()]),
    pickle.APPENDS: lambda u: _append(u, u.since_mark()),
    pickle.SETITEM: lambda u: _set(u, _two(u)),
    pickle.SETITEMS: lambda u: _set(u, u.since_mark()),
    # the memo
    pickle.BINPUT: lambda u: _remember(u, u.number("<B")),
    pickle.LONG_BINPUT: lambda u: _remember(u, u.number("<I")),
    pickle.MEMOIZE: lambda u: _remember(u, len(u.memo)),
    pickle.BINGET: _push(lambda u: u.memo[u.number("<B")]),
    pickle.LONG_BINGET: _push(lambda u: u.memo[u.number("<I")]),
    # names and objects
    pickle.GLOBAL: _global,
    pickle.STACK_GLOBAL: _stack_global,
    pickle.BINPERSID: _push(lambda u: u.persistent(u.stack.pop())),
    pickle.REDUCE: _call,
    pickle.NEWOBJ: _call,
    pickle.BUILD: _build,
}
