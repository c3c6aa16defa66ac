"""Computational sequences of the CMU-MultimodalSDK (`.csd`).

Layout (HDF5, https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK), of which the metadata are not read:

    /<root name>/data/<entry>/intervals  (T, 2) start and end of each row, s
    /<root name>/data/<entry>/features   (T, D) numbers, or texts

An entry is a video or one segment of it, `video[segment]`. As in the SDK, row i of a video's labels is its segment i.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float64, Shaped

from tmtlib.data.guard import Room, reading
from tmtlib.data.schema import DataError

Timed = tuple[Float64[np.ndarray, "T 2"], Shaped[np.ndarray, "T D"]]  # intervals in s; features, float32 or texts


def read_csd(path: str | Path) -> dict[str, Timed]:
    """Intervals and features of each entry; errors as `entries`."""
    return dict(entries(path))


def entries(path: str | Path) -> Iterator[tuple[str, Timed]]:
    """The content of `read_csd`, one entry in memory at a time. Raises FileNotFoundError, and DataError for another
    layout, arrays that take far more memory than the file, or data that are not in the file itself."""
    if Path(path).is_file() and not h5py.is_hdf5(path):
        raise DataError(f"{path} is no HDF5 file; wanted a computational sequence (.csd) of the CMU-MultimodalSDK")
    room = Room(Path(path).stat().st_size)
    with reading(path, "a whole computational sequence (.csd)"), h5py.File(path, "r") as file:
        if len(file) != 1:
            raise DataError(f"{path} holds {len(file)} groups; wanted one, named as the sequence")
        data = _member(_member(file, next(iter(file)), h5py.Group), "data", h5py.Group)
        for name in data:
            entry = _member(data, name, h5py.Group)
            intervals, features = (_array(_member(entry, k, h5py.Dataset), room) for k in ("intervals", "features"))
            if intervals.dtype.kind == "U" or intervals.shape != (len(features), 2):
                found = f"intervals are {intervals.dtype} {intervals.shape}"
                raise DataError(f"{path}, {name}: {found}; wanted start and end of {len(features)} rows, in seconds")
            yield name, (intervals.astype(np.float64), features)


def _member(group: h5py.Group, name: str, kind: type) -> h5py.Group | h5py.Dataset:
    """A group or array of the file itself: a link could show any other file of this machine."""
    link, where = group.get(name, getlink=True), f"{group.file.filename}: {group.name.rstrip('/')}/{name}"
    member = group[name] if isinstance(link, h5py.HardLink) else link
    if not isinstance(member, kind):
        found = "is missing" if link is None else f"is of type {type(member).__name__}"
        raise DataError(f"{where} {found}; wanted a {kind.__name__} in the file itself")
    if kind is h5py.Dataset and (member.external or member.is_virtual):
        raise DataError(f"{where} is stored in another file; wanted its values in the file itself")
    return member


def _array(stored: h5py.Dataset, room: Room) -> np.ndarray:
    """Texts or numbers (T, D); the memory that they take is checked before they are read."""
    texts = h5py.check_string_dtype(stored.dtype) is not None
    if stored.ndim not in (1, 2) or not (texts or stored.dtype.kind in "iuf"):
        found = f"{stored.file.filename}: {stored.name} is {stored.dtype} {stored.shape}"
        raise DataError(f"{found}; wanted (T, D) numbers or texts")
    chunk = math.prod(stored.chunks or ()) * stored.dtype.itemsize
    room.take(chunk)
    room.left += chunk  # it is unpacked as a whole, then let go
    numbers = np.float64 if stored.name.endswith("intervals") else np.float32
    room.take(max(stored.nbytes, stored.size * np.dtype(numbers).itemsize))
    values = stored.asstr(errors="replace")[()] if texts else stored[()].astype(numbers, copy=False)
    if texts:
        room.take(4 * values.size * max(map(len, values.flat), default=0))
        values = values.astype(str)
    return values[:, None] if values.ndim == 1 else values
