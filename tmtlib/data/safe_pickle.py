"""Pickles without running code: only arrays, text, numbers, lists, tuples and dicts are read.

`pickle.load` runs whatever a file names; here no global is looked up, and the few names that arrays need are replaced
by stand-ins. These allow plain dtypes only: numpy's `dtype.__setstate__` would let a pickle take the object flag from
dtype 'O' and use raw bytes as pointers.
"""

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np

from tmtlib.data.schema import DataError

PLAIN_DTYPE = re.compile(r"[<>|=]?([?biufcSUO])\d*")  # bool, numbers, bytes, str, object: "f4", "<U11", "O8"

# What a broken pickle can raise
BROKEN = (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, ImportError)
BROKEN += (MemoryError, OverflowError, RecursionError)


class RefusedPickle(DataError):
    """A pickle that needs more than arrays, text, numbers, lists, tuples and dicts."""


REFUSAL = (
    "which no feature file needs; as a pickle can run code on this machine, it was refused and nothing was run. "
    "Wanted: numpy arrays, text, numbers, lists, tuples and dicts. If you trust the file, load it where it was made "
    "and save it again with plain numpy arrays (a torch tensor by .numpy(), a pandas column by .to_numpy())"
)


def load(path: str | Path, file: BinaryIO | None = None) -> object:
    """The content of a pickle, protocols 0 to 5, numpy 1 and 2, Python 2 (strings read as latin-1), or of joblib.

    `file`: the pickle, where it is only a part of `path` or compressed there. Raises RefusedPickle with the name of the
    refused global, DataError for a broken file.
    """
    path = Path(path)
    if file is None:
        with open(path, "rb") as file:
            return load(path, file)
    start = file.tell()
    try:
        return _plain(_Unpickler(file).load(), {})
    except (RefusedPickle, *BROKEN) as error:
        file.seek(start)
        head = file.read(1 << 20)
        kind, wanted = _no_pickle(head)
        if isinstance(error, RefusedPickle) and not kind:
            raise RefusedPickle(f"{path} asks for {error}, {REFUSAL}") from None
        found = f"a file that begins with {head[:12]!r}" if head else "an empty file"
        reason = f"{type(error).__name__}: {error}"
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
            raise RefusedPickle(f"a numpy array of dtype {spec!r}")
        self.value = np.dtype(spec)

    def __setstate__(self, state: tuple):
        if state[1] in ("<", ">"):  # byte order, the only state of a plain dtype
            self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """Replaces numpy.ndarray while a pickle is read; `_plain` makes it an ndarray."""

    def __setstate__(self, state: tuple):
        version, shape, dtype, fortran, content = state
        # From a list shorter than the shape, numpy would read memory beyond its end
        if dtype.value.hasobject and not (min(shape, default=0) >= 0 and len(content) == math.prod(shape)):
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
        raise RefusedPickle(f"the codec {encoding!r}")
    return text.encode("latin1")


class _Stored:
    """Replaces joblib's NumpyArrayWrapper, whose array follows it in the file: raw bytes, or a pickle of objects."""

    file: BinaryIO  # set by each `_Unpickler`
    array: np.ndarray | None = None

    def __setstate__(self, state: dict):
        dtype, shape = state["dtype"].value, state["shape"]
        if dtype.hasobject:
            self.array = _Unpickler(self.file).load()
            return
        if state.get("numpy_array_alignment_bytes"):
            self.file.read(ord(self.file.read(1)))  # padding, after its size
        content = bytearray(self.file.read(math.prod(shape) * dtype.itemsize))
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


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO):
        # Without `peek`, by which it would read ahead into the arrays of joblib
        exact = SimpleNamespace(read=file.read, readinto=file.readinto, readline=file.readline)
        super().__init__(exact, encoding="latin1")
        self.stored = type("_StoredHere", (_Stored,), {"file": file})

    def find_class(self, module: str, name: str) -> object:
        """The stand-in of an admitted name; exact pairs, so that "numpy" with a dotted name is refused."""
        if (module, name) in JOBLIB:
            return self.stored
        if (module, name) not in ADMITTED:
            full = f"{module}.{name}"
            raise RefusedPickle(full if full.isprintable() else repr(full))
        return ADMITTED[module, name]

    def persistent_load(self, pid: object) -> object:
        raise RefusedPickle(f"the outside object {pid!r}")


def _plain(value: object, done: dict[int, tuple[object, object]]) -> object:
    """Replaces every stand-in by numpy's type; lists, dicts and object arrays change in place.

    `done`: id of a container -> (container, result). Shared and circular ones are visited once, and holding the
    container keeps its id from being reused.
    """
    if isinstance(value, _Dtype):
        return value.value
    if isinstance(value, (_StandIn, type, set, frozenset)):
        raise RefusedPickle("a function" if isinstance(value, (_StandIn, type)) else f"a {type(value).__name__}")
    if isinstance(value, _Stored):
        return _plain(value.array, done)
    if not isinstance(value, (list, dict, tuple, _Array)):
        return value
    if id(value) in done:
        return done[id(value)][1]
    result = value.view(np.ndarray) if isinstance(value, _Array) else value
    done[id(value)] = value, result
    if isinstance(value, tuple):
        result = tuple(_plain(v, done) for v in value)
        done[id(value)] = value, result
    elif isinstance(value, _Array):
        for at, v in np.ndenumerate(result) if result.dtype.hasobject else ():
            if (plain := _plain(v, done)) is not v:
                result[at] = plain
    elif isinstance(value, list):
        value[:] = [_plain(v, done) for v in value]
    else:
        for key in tuple(value):
            _plain(key, done)  # a key stays as it is, and is checked
            value[key] = _plain(value[key], done)
    return result
