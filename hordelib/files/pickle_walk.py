"""Follows the opcodes of a stranger's pickle, and does nothing that they say.

Python's own unpickler imports, calls and hashes what a file names, and can be made to end its
process. This one only keeps account of texts, whole numbers, names, dicts and shapes of tensors.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import IO, Final, cast

from hordelib.errors import shown

TOO_LONG = "its list of tensors is longer than that of any checkpoint"
_MOST_OPCODES = 500_000  # the largest checkpoints have about 200,000
_MOST_DIMENSIONS = 16
_MOST_REFUSED = 10  # names that are kept, for the error
_LARGEST = 1 << 63  # more than any tensor has values

# What torch 2.5's weights_only allows, and the few names that are added to it (loaders/tensors.py).
_ALLOWED = re.compile(
    r"""
    collections\.(OrderedDict|Counter)
    | (builtins|__builtin__)\.(set|bytearray|complex|dict|list|int|float|str|bool)
    | torch\.(\w+Storage|Size|Tensor|device|float\w*|double|half|bfloat16|u?int\d*|long|short|bool
              |complex\w+|q\w+|strided|sparse_\w+)
    | torch\.storage\.(Typed|Untyped)Storage
    | torch\.nn\.parameter\.(Parameter|Buffer)
    | torch\._utils\._rebuild_\w+
    | torch\._tensor\._rebuild_from_type_v2
    | torch\.serialization\._get_layout
    | pytorch_lightning\.callbacks\.model_checkpoint\.ModelCheckpoint
    | numpy\._?core\.multiarray\.scalar
    | numpy\.dtype
    | _codecs\.encode
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Name:
    """A class or function that the pickle names."""

    path: str


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """Stands for a tensor."""

    shape: tuple[int, ...]


class _Opaque:
    """Stands for everything that nobody asks about; what is done to it leaves it as it is."""


_OPAQUE: Final = _Opaque()
_MARK: Final = _Opaque()  # on the stack, where a list of arguments begins
_PLAIN = (int, str, dict, _Name, PickledTensor)


@dataclass(slots=True)
class Walk:
    """Follows pickles; of the values only texts, whole numbers, short tuples, dicts and tensors."""

    stack: list[object] = field(default_factory=list[object])
    memo: dict[int, object] = field(default_factory=dict[int, object])
    refused: set[str] = field(default_factory=set[str])
    result: object = _OPAQUE
    opcodes: int = 0

    def follow(self, content: IO[bytes]) -> None:
        """One pickle, up to its end. Raises ValueError, IndexError, KeyError for a broken one."""
        self.stack.clear()
        self.memo.clear()
        for opcode, argument, _ in pickletools.genops(content):
            self.opcodes += 1
            if self.opcodes > _MOST_OPCODES:
                raise ValueError(TOO_LONG)
            step = _STEPS.get(opcode.name)
            if step is None:
                raise ValueError(f"opcode {opcode.name} in its list of tensors")
            step(self, argument)
        self.result = self.stack.pop()

    def since_mark(self) -> list[object]:
        """Takes what lies above the last mark, and the mark."""
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                values = self.stack[i + 1 :]
                del self.stack[i:]
                return values
        raise ValueError("no mark")

    def name(self, path: str, *, is_allowed: bool) -> None:
        is_allowed = is_allowed and _ALLOWED.fullmatch(path) is not None
        if not is_allowed and len(self.refused) < _MOST_REFUSED:
            self.refused.add(shown(path).strip("'\""))
        self.stack.append(_Name(path))


_Step = Callable[[Walk, object], None]


def _push(value: object) -> _Step:
    return lambda walk, _: walk.stack.append(value)


def _push_argument(walk: Walk, argument: object) -> None:
    walk.stack.append(argument if type(argument) in (int, str) else _OPAQUE)


def _replace(count: int) -> _Step:
    """For what takes so many values and gives one of which nothing is known."""

    def step(walk: Walk, _: object) -> None:
        _take(walk, count)
        walk.stack.append(_OPAQUE)

    return step


def _take(walk: Walk, count: int) -> list[object]:
    if len(walk.stack) < count:
        raise ValueError("a value is missing")
    values = walk.stack[-count:]
    del walk.stack[-count:]
    return values


def _drop(walk: Walk, _: object) -> None:
    _take(walk, 1)


def _drop_marked(walk: Walk, _: object) -> None:
    walk.since_mark()


def _collapse(walk: Walk, _: object) -> None:
    walk.since_mark()
    walk.stack.append(_OPAQUE)


def _new_dict(walk: Walk, _: object) -> None:
    walk.stack.append({})


def _dict(walk: Walk, _: object) -> None:
    items = walk.since_mark()
    walk.stack.append({})
    _put(walk, items)


def _set_item(walk: Walk, _: object) -> None:
    _put(walk, _take(walk, 2))


def _set_items(walk: Walk, _: object) -> None:
    _put(walk, walk.since_mark())


def _put(walk: Walk, items: list[object]) -> None:
    """Into the dict on the top; what is no text is no name of a tensor."""
    into = walk.stack[-1]
    if isinstance(into, dict):
        named = cast("dict[str, object]", into)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str):
                named[key] = value


def _tuple(walk: Walk, _: object) -> None:
    walk.stack.append(_flat(walk.since_mark()))


def _tuple_of(count: int) -> _Step:
    return lambda walk, _: walk.stack.append(_flat(_take(walk, count)))


def _flat(values: list[object]) -> object:
    """A tuple in which there are no tuples but those of whole numbers: nothing gets deep."""
    if len(values) > _MOST_DIMENSIONS:
        return _OPAQUE
    return tuple(value if _is_plain(value) else _OPAQUE for value in values)


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or _size(value) is not None


def _size(value: object) -> tuple[int, ...] | None:
    """A shape; None for what is none."""
    if not isinstance(value, tuple):
        return None
    numbers = cast("tuple[object, ...]", value)
    if all(type(each) is int and 0 <= each < _LARGEST for each in numbers):
        return cast("tuple[int, ...]", numbers)
    return None


def _global(walk: Walk, argument: object) -> None:
    walk.name(str(argument).replace(" ", "."), is_allowed=True)


def _inst(walk: Walk, argument: object) -> None:
    walk.since_mark()
    walk.name(str(argument).replace(" ", "."), is_allowed=False)


def _built_name(walk: Walk, _: object) -> None:
    """Its two parts may be put together of anything."""
    _take(walk, 2)
    walk.refused.add("a name that it builds itself")
    walk.stack.append(_OPAQUE)


def _extension(walk: Walk, _: object) -> None:
    walk.refused.add("a name that it builds itself")
    walk.stack.append(_OPAQUE)


def _reduce(walk: Walk, _: object) -> None:
    function, arguments = _take(walk, 2)
    walk.stack.append(_result(function, arguments))


def _result(function: object, arguments: object) -> object:
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        return _OPAQUE
    given = cast("tuple[object, ...]", arguments)
    if function.path == "collections.OrderedDict":
        return {}
    name = function.path.rpartition(".")[2]
    if name.startswith("_rebuild_tensor") and len(given) > 2:
        shape = _size(given[2])
        return _OPAQUE if shape is None or prod(shape) >= _LARGEST else PickledTensor(shape)
    if name.startswith("_rebuild_parameter") and given:
        return given[0]
    return _OPAQUE


def _remember_at(walk: Walk, argument: object) -> None:
    walk.memo[cast("int", argument)] = walk.stack[-1]


def _memoize(walk: Walk, _: object) -> None:
    walk.memo[len(walk.memo)] = walk.stack[-1]


def _recall(walk: Walk, argument: object) -> None:
    walk.stack.append(walk.memo[cast("int", argument)])


def _duplicate(walk: Walk, _: object) -> None:
    walk.stack.append(walk.stack[-1])


def _nothing(_walk: Walk, _: object) -> None:
    """Says nothing of the values."""


# What each opcode does. Those that torch never writes are missing: they end the walk.
_ROWS: tuple[tuple[str, _Step], ...] = (
    ("INT BININT BININT1 BININT2 LONG LONG1 LONG4", _push_argument),
    ("STRING BINSTRING SHORT_BINSTRING", _push_argument),
    ("UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8", _push_argument),
    ("NONE NEWTRUE NEWFALSE FLOAT BINFLOAT PERSID EMPTY_LIST EMPTY_SET", _push(_OPAQUE)),
    ("BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8", _push(_OPAQUE)),
    ("PROTO FRAME STOP", _nothing),
    ("EXT1 EXT2 EXT4", _extension),
    ("MARK", _push(_MARK)),
    ("APPENDS ADDITEMS POP_MARK", _drop_marked),
    ("LIST FROZENSET OBJ", _collapse),
    ("POP APPEND BUILD", _drop),
    ("DUP", _duplicate),
    ("PUT BINPUT LONG_BINPUT", _remember_at),
    ("MEMOIZE", _memoize),
    ("GET BINGET LONG_BINGET", _recall),
    ("EMPTY_TUPLE", _push(())),
    ("TUPLE", _tuple),
    ("TUPLE1", _tuple_of(1)),
    ("TUPLE2", _tuple_of(2)),
    ("TUPLE3", _tuple_of(3)),
    ("EMPTY_DICT", _new_dict),
    ("DICT", _dict),
    ("SETITEM", _set_item),
    ("SETITEMS", _set_items),
    ("GLOBAL", _global),
    ("INST", _inst),
    ("STACK_GLOBAL", _built_name),
    ("REDUCE", _reduce),
    ("BINPERSID", _replace(1)),
    ("NEWOBJ", _replace(2)),
    ("NEWOBJ_EX", _replace(3)),
)
_STEPS: Mapping[str, _Step] = {name: step for names, step in _ROWS for name in names.split()}
