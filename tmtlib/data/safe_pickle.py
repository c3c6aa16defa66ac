"""Pickles without running code: only arrays, text, numbers, lists, tuples and dicts are read.

`pickle.load` runs whatever a file names; here no global is looked up, and the few names that arrays need are replaced
by stand-ins. These allow plain dtypes only: numpy's `dtype.__setstate__` would let a pickle take the object flag from
dtype 'O' and use raw bytes as pointers.
"""

import math
import pickle
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tmtlib.data.guard import Room, check_shape
from tmtlib.data.schema import DataError

PLAIN_DTYPE = re.compile(r"[<>|=]?([?biufcSUO])\d*")  # bool, numbers, bytes, str, object: "f4", "<U11", "O8"

DEEPEST = 32  # containers in one another
LONGEST = 2048  # bits of a whole number


class RefusedPickle(DataError):
    """A pickle that needs more than arrays, text, numbers, lists, tuples and dicts."""


REFUSAL = (
    "which no feature file needs; as a pickle can run code on this machine, it was refused and nothing was run. "
    "Wanted: numpy arrays, text, numbers, lists, tuples and dicts. If you trust the file, load it where it was made "
    "and save it again with plain numpy arrays (a torch tensor by .numpy(), a pandas column by .to_numpy())"
)


def load(path: str | Path, file: BinaryIO | None = None, room: Room | None = None) -> object:
    """The content of a pickle, protocols 0 to 5, numpy 1 and 2, Python 2 (strings read as latin-1), or of joblib.

    `file`: the pickle, where it is only a part of `path` or compressed there; `room`: memory left for it. Raises
    RefusedPickle with the name of the refused global, DataError for a broken file and for one whose content would take
    far more memory than the file, is nested deeper than `DEEPEST`, or holds itself.
    """
    path = Path(path)
    if file is None:
        with open(path, "rb") as file:
            return load(path, file)
    start, room = file.tell(), room or Room(path.stat().st_size)
    try:
        return _plain(_Unpickler(file, room).load(), room)
    except Exception as error:  # whatever a broken pickle makes Python or numpy raise
        file.seek(start)
        head = file.read(1 << 20)
        kind, wanted = _no_pickle(head)
        if isinstance(error, RefusedPickle) and not kind:
            raise RefusedPickle(f"{path} asks for {error}, {REFUSAL}") from None
        if isinstance(error, DataError) and not kind:
            raise DataError(f"{path} is no feature file: {error}") from None
        found = f"a file that begins with {head[:12]!r}" if head else "an empty file"
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        found = f"found {found}{kind and f' ({kind})'}, {path.stat().st_size} bytes"
        raise DataError(f"{path} is not a whole pickle ({reason}); {found}; wanted {wanted}") from error


def _no_pickle(head: bytes) -> tuple[str, str]:
    """What a file that is no pickle is by its first bytes ("": nothing known), and what is wanted of the user."""
    first = head[:500].decode("utf-8", "replace").lstrip().split("\n")[0].rstrip()
    whole = "a complete feature file; fetch it again and compare its SHA-256"
    if first[:1] == "<":
        return "a web page, perhaps a download that was refused?", whole
    if first[:1] in ("{", "["):
        return "JSON?", "arrays of features in a pickle or .npz, in MMSA's layout"
    if head[:3] == b"\xef\xbf\xbd" or head.count(b"\n") == head.count(b"\r\n") > 3:
        return "its line ends or bytes were changed, as by a transfer in text mode", "the file fetched as binary"
    return "", whole


class _Dtype:
    """Replaces numpy.dtype while a pickle is read."""

    __slots__ = ("value",)

    def __init__(self, spec: object, align: object = False, copy: object = False):
        if not (isinstance(spec, str) and PLAIN_DTYPE.fullmatch(spec)):
            raise RefusedPickle(f"a numpy array of dtype {_shown(spec)}")
        self.value = np.dtype(spec)

    def __setstate__(self, state: tuple):
        if state[1] in ("<", ">"):  # byte order, the only state of a plain dtype
            self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """Replaces numpy.ndarray while a pickle is read; `_plain` makes it an ndarray."""

    def __setstate__(self, state: tuple):
        version, shape, dtype, fortran, content = state
        check_shape(shape, dtype.value.itemsize)
        # From a list shorter than the shape, numpy would read memory beyond its end
        if dtype.value.hasobject and len(content) != math.prod(shape):
            raise RefusedPickle(f"an array {shape} of {len(content)} objects")
        super().__setstate__((version, shape, dtype.value, fortran, content))


class _StandIn:
    """A callable that a pickle cannot change (BUILD on a plain function would set attributes)."""

    __slots__ = ("call",)

    def __init__(self, call: Callable):
        self.call = call

    def __call__(self, *arguments: object) -> object:
        return self.call(*arguments)

    def __setstate__(self, state: object):
        raise RefusedPickle("a change to a function")


def _frombuffer(buffer: object, dtype: _Dtype, shape: tuple, order: str, axes: tuple | None = None) -> np.ndarray:
    """Arrays of protocol 5; newer numpy adds the axes of a transposed one, with order "K"."""
    check_shape(shape, dtype.value.itemsize)
    array = np.frombuffer(buffer, dtype=dtype.value)
    return array.reshape(shape, order=order) if axes is None else array.reshape(shape).transpose(axes)


def _scalar(dtype: _Dtype, content: object = b"") -> object:
    if dtype.value.hasobject:
        return content
    raw = content.encode("latin1") if isinstance(content, str) else content  # str: from Python 2
    return np.frombuffer(raw, dtype=dtype.value)[0] if raw else dtype.value.type()


def _encode(text: str, encoding: str) -> bytes:
    """Array bytes of protocols 0 to 2."""
    if encoding != "latin1":
        raise RefusedPickle(f"the codec {_shown(encoding)}")
    return text.encode("latin1")


class _Stored:
    """Replaces joblib's NumpyArrayWrapper, whose array follows it in the file: raw bytes, or a pickle of objects."""

    outer: "_Unpickler"  # set by each `_Unpickler`
    array: np.ndarray | None = None

    def __setstate__(self, state: dict):
        dtype, shape, file, room = state["dtype"].value, state["shape"], self.outer.file, self.outer.room
        check_shape(shape, dtype.itemsize)
        if dtype.hasobject:
            self.array = _Unpickler(file, room).load()
            return
        if state.get("numpy_array_alignment_bytes"):
            file.read(ord(file.read(1)))  # padding, after its size
        content = bytearray(file.read(room.take(math.prod(shape) * dtype.itemsize)))
        self.array = np.frombuffer(content, dtype).reshape(shape, order=state["order"])


def _reconstruct(subtype: object, shape: object, typecode: object) -> np.ndarray:
    return np.ndarray.__new__(_Array, (0,), "b")  # filled by _Array.__setstate__


CALLS = {"numpy.ndarray": _reconstruct, "numpy.dtype": _Dtype, "_codecs.encode": _encode}
CALLS |= dict.fromkeys(("builtins.bytes", "__builtin__.bytes"), lambda: b"")  # empty bytes in protocols 0 to 2
for core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    CALLS |= {f"{core}.multiarray._reconstruct": _reconstruct, f"{core}.multiarray.scalar": _scalar}
    CALLS[f"{core}.numeric._frombuffer"] = _frombuffer
JOBLIB = [(f"{place}joblib.numpy_pickle", "NumpyArrayWrapper") for place in ("", "sklearn.externals.")]
ADMITTED = {tuple(name.rsplit(".", 1)): _StandIn(call) for name, call in CALLS.items()}


# Memory that an opcode may take, with its share of the stack and of the memo; 32 for the others
COST = (
    dict.fromkeys(b"]}l)t\x85\x86\x87d(", 128)
    | dict.fromkeys(b"pqr\x94", 96)
    | dict.fromkeys(b"UVTSXBC\x8c\x8d\x8e", 64)
)
COST |= dict.fromkeys(b"R\x81b", 256)
REFUSED = {"a set": b"\x8f\x90", "a frozenset": b"\x91", "a copyreg extension": b"\x82\x83\x84"}
REFUSED |= {"a class": b"io\x92", "an outside buffer": b"\x97\x98", "a number of more than 255 bytes": b"\x8b"}


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler in Python, which is as fast where arrays are large, and whose every step can be checked:
    that in C makes room for any memo index, and hashes keys that end in a crash or never."""

    def __init__(self, file: BinaryIO, room: Room):
        super().__init__(file, encoding="latin1")
        self.file, self.room, self.dispatch = file, room, self  # `load` looks up each opcode in `dispatch`
        self.stored = type("_StoredHere", (_Stored,), {"outer": self})
        self._file_read, self._file_readline = self._read, self._read_line

    def load(self) -> object:
        try:
            return super().load()
        finally:
            self.memo.clear()  # this object holds itself, so the content would stay until it is collected

    def __getitem__(self, opcode: int) -> Callable:
        self.room.take(COST.get(opcode, 32))
        return READERS[opcode]

    def _read(self, size: int) -> bytes:
        content = self.file.read(size) if size <= self.room.left else b""
        if len(content) < size:
            raise EOFError(f"it ends within {size} bytes")
        return content

    def _read_line(self) -> bytes:
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it ends within a line")
        return line

    def find_class(self, module: str, name: str) -> object:
        """The stand-in of an admitted name; exact pairs, so that "numpy" with a dotted name is refused."""
        if (module, name) in JOBLIB:
            return self.stored
        if (module, name) not in ADMITTED:
            full = f"{module}.{name}"[:200]
            raise RefusedPickle(full if full.isprintable() else repr(full))
        return ADMITTED[module, name]

    def persistent_load(self, pid: object) -> object:
        raise RefusedPickle(f"the outside object {_shown(pid)}")

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _StandIn):
            raise RefusedPickle(f"a call of a {type(function).__name__}")
        self.append(function(*arguments))
        self.room.take(sys.getsizeof(self.stack[-1]))

    def load_newobj(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if kind is not self.stored or arguments != ():
            raise RefusedPickle(f"an object of a {type(kind).__name__}")
        self.append(kind())

    def load_build(self) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if not isinstance(value, (_Array, _Dtype, _StandIn, _Stored)):
            raise RefusedPickle(f"a state of a {type(value).__name__}")
        value.__setstate__(state)
        self.room.take(sys.getsizeof(value))

    def load_bytearray8(self) -> None:
        content = bytearray(self.room.take(int.from_bytes(self.read(8), "little")))
        frame = self._unframer.current_frame
        inside = frame is not None and frame.tell() < frame.getbuffer().nbytes
        if (frame if inside else self.file).readinto(content) < len(content):
            raise EOFError(f"it ends within {len(content)} bytes")
        self.append(content)

    def load_dict(self) -> None:
        pairs = self.pop_mark()
        self.append(_filled({}, pairs))

    def load_setitem(self) -> None:
        pair = self.stack[-2:]
        del self.stack[-2:]
        _filled(self.stack[-1], pair)

    def load_setitems(self) -> None:
        pairs = self.pop_mark()
        _filled(self.stack[-1], pairs)


def _filled(content: object, pairs: list) -> dict:
    """A dict with more keys and values; no keys whose hash follows from them, as of tuples: they can be made equal."""
    keys = pairs[::2]
    if type(content) is not dict or len(pairs) % 2:
        raise RefusedPickle(f"an item of a {type(content).__name__}")
    for key in keys:
        number = isinstance(key, (int, np.integer)) and abs(int(key)) < 1 << 60
        if not (number or key is None or isinstance(key, (str, bytes))):
            raise RefusedPickle(f"a dict with the key {_shown(key)}")
    content.update(zip(keys, pairs[1::2], strict=True))
    return content


def _refuse(what: str) -> Callable:
    def refuse(unpickler: _Unpickler) -> None:
        raise RefusedPickle(what)

    return refuse


READERS = {opcode: getattr(_Unpickler, load.__name__) for opcode, load in pickle._Unpickler.dispatch.items()}
READERS |= {opcode: _refuse(what) for what, opcodes in REFUSED.items() for opcode in opcodes}


def _shown(value: object) -> str:
    """A text, cut, or only the type of another value: to show the whole of it may never end."""
    return repr(value[:200]) if isinstance(value, str) else f"a {type(value).__name__}"


def _plain(value: object, room: Room, depth: int = 0) -> object:
    """Replaces every stand-in by numpy's type. What is shared counts each time it is met: readers copy it."""
    if isinstance(value, (str, bytes, bytearray)):
        room.take(len(value))
        return value
    if isinstance(value, int) and value.bit_length() > LONGEST:
        raise RefusedPickle(f"a number of {value.bit_length()} bits")
    if depth > DEEPEST:
        raise DataError(f"its containers are nested deeper than {DEEPEST}, or one holds itself")
    if isinstance(value, _Stored):
        value = value.array
    if isinstance(value, _Dtype):
        return value.value
    if isinstance(value, (_StandIn, type)):
        raise RefusedPickle("a function")
    within = partial(_plain, room=room, depth=depth + 1)
    if isinstance(value, np.ndarray):
        value = value.view(np.ndarray)
        room.take(128 + value.nbytes)
        if value.dtype.hasobject:
            content, value = value, np.empty(value.shape, object)
            for at, v in np.ndenumerate(content):
                value[at] = within(v)
    if isinstance(value, (list, tuple)):
        room.take(256 + 16 * len(value))
        return type(value)(map(within, value))
    if isinstance(value, dict):
        room.take(256 + 128 * len(value))
        return {key: within(v) for key, v in value.items()}
    return value
