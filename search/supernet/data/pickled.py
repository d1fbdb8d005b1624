"""Values in a pickle, without unpickling: its opcodes are read one by one, and nothing that they name is looked up.

Only what CIFAR-10's files have is known: dictionaries, lists, texts, whole numbers and numpy's arrays of bytes, as
Python 2 wrote them. Any other opcode or name ends the reading.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

_ARRAY, _DTYPE = "numpy.core.multiarray _reconstruct", "numpy dtype"
_NAMES = {_ARRAY, _DTYPE, "numpy ndarray"}

_CONSTANTS = {"BININT", "BININT1", "BININT2", "BINSTRING", "SHORT_BINSTRING"}
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Any] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass
class _Called:
    """What a pickle would call, as a record of its name, arguments and state."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


class _Mark:
    """Beginning of what an opcode takes together."""


def values_of(data: bytes) -> dict[Any, Any]:
    """The dictionary that a pickle holds, its arrays of shape and bytes as it says.

    Raises:
        ValueError: damaged, or with other opcodes or names than such files have.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return {name: _array(value) for name, value in stack.pop().items()}
            _take(opcode.name, argument, stack, memo)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("its opcodes do not fit together") from error
    raise ValueError("it has no end")


def _take(opcode: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """Do to the stack what an opcode says."""
    match opcode:
        case _ if opcode in _CONSTANTS:
            stack.append(argument)
        case _ if opcode in _VALUES:
            stack.append(_VALUES[opcode])
        case _ if opcode in _EMPTY:
            stack.append(_EMPTY[opcode]())
        case _ if opcode in _TUPLES:
            stack[-_TUPLES[opcode] :] = [tuple(stack[-_TUPLES[opcode] :])]
        case "MARK":
            stack.append(_Mark())
        case "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        case "APPENDS":
            items = _since_mark(stack)
            stack[-1].extend(items)
        case "SETITEMS":
            items = _since_mark(stack)
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "GLOBAL" if argument in _NAMES:
            stack.append(argument)
        case "REDUCE":
            arguments = stack.pop()
            stack.append(_Called(stack.pop(), arguments))
        case "BUILD":
            state = stack.pop()
            stack[-1].state = state
        case "PROTO":
            pass
        case _:
            raise ValueError(f"it has {opcode} {str(argument or '')[:80]!r}, which these files do not have")


def _since_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while not isinstance(top := stack.pop(), _Mark):
        items.append(top)
    return items[::-1]


def _array(value: Any) -> Any:
    """A value of the dictionary, where that is an array."""
    if not isinstance(value, _Called) or value.name != _ARRAY:
        return value
    _, shape, dtype, by_columns, text = value.state
    if (dtype.name, dtype.arguments[0], by_columns) != (_DTYPE, "u1", False):
        raise ValueError("it has an array of something else than rows of bytes")
    pixels = np.frombuffer(text.encode("latin-1"), np.uint8)
    if math.prod(shape) != pixels.size:
        raise ValueError("it has an array of another size than it says")
    return pixels.reshape(shape)
