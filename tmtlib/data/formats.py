"""The content of a feature file by its first bytes: pickles, also joblib's and compressed ones, `.npz`, and tables of
text; other formats are refused by name with what to do."""

import bz2
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tmtlib.data import feature_table, safe_pickle
from tmtlib.data.guard import Room, check_shape, reading
from tmtlib.data.schema import DataError

SMALL, RATIO = 32 << 20, 20  # decompressed: at most so many bytes, or so many times the file's; real ones have 2 to 7
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open, b"]\0\0": lzma.open}
COMPRESSED |= {b"x" + level: None for level in (b"\x01", b"\x5e", b"\x9c", b"\xda")}  # zlib
SAVE = "save its arrays in MMSA's layout: pickle.dump({'train': {...}, 'valid': {...}, 'test': {...}}, file, 4)"
UNPACK = "unpack it and give the feature file in it"
REFUSED = {  # by the first bytes: what it is, what to do
    b"\x89HDF": ("HDF5 (.h5, .csd, .mat)", f"read it with h5py and {SAVE}"),
    b"\x93NUMPY": ("a single array (.npy)", SAVE),
    b"PAR1": ("Parquet", SAVE),
    b"MATLAB": ("MATLAB", f"read it with scipy.io.loadmat and {SAVE}"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", UNPACK),
    b"Rar!": ("a RAR archive", UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"version https://git-lfs": ("a pointer of Git LFS and not the file", "fetch that with git lfs pull"),
}


def load(path: Path) -> object:
    """The content of a pickle, joblib's or compressed too, or of an `.npz`; a DataFrame of a CSV or TSV file. Raises
    DataError for other formats and for what decompresses to more than `SMALL` bytes and `RATIO` times the file, and as
    `safe_pickle.load`."""
    with reading(path, "a whole feature file; fetch it again and compare its SHA-256"), open(path, "rb") as file:
        if (kind := _which(COMPRESSED, file)) is not None:
            file = _decompressed(path, file, COMPRESSED[kind])
        if (kind := _which(REFUSED, file)) is not None:
            raise _refused(path, *REFUSED[kind])
        if _which((b"PK\x03\x04",), file) is not None:
            return _from_zip(path, file)
        if (table := feature_table.read(path, file)) is not None:
            return table
        room = Room(file.seek(0, os.SEEK_END))
        file.seek(0)
        return safe_pickle.load(path, file, room)


def _which(starts: Iterable[bytes], file: BinaryIO) -> bytes | None:
    head = file.read(32)
    file.seek(0)
    return next((start for start in starts if head.startswith(start)), None)


def _refused(path: Path, what: str, mend: str) -> DataError:
    return DataError(f"{path} is {what}; wanted a feature file (a pickle or .npz in MMSA's layout): {mend}")


def _most(path: Path) -> int:
    return max(SMALL, RATIO * path.stat().st_size)


def _decompressed(path: Path, file: BinaryIO, opener: Callable | None) -> io.BytesIO:
    """The bytes of a compressed file. `opener` None: zlib."""
    whole = io.BytesIO()
    try:
        if opener is None:
            whole.write(zlib.decompressobj().decompress(file.read(), _most(path) + 1))
        else:
            source = opener(file)
            while whole.tell() <= _most(path) and (part := source.read(1 << 20)):
                whole.write(part)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} is compressed and broken ({error}); fetch it again and compare its SHA-256") from error
    if whole.tell() > _most(path):
        raise _refused(path, f"compressed, and more than {_most(path)} bytes when decompressed", UNPACK)
    if whole.getbuffer()[257:262] == b"ustar":
        raise _refused(path, "a compressed tar archive", UNPACK)
    whole.seek(0)
    return whole


def _from_zip(path: Path, file: BinaryIO) -> dict[str, object]:
    """Arrays of an `.npz` by name; objects in them are read as pickles are."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.filename.endswith("data.pkl") for member in members):
            raise _refused(path, "a PyTorch file", f"torch.load it, make tensors arrays by .numpy() and {SAVE}")
        if not all(member.filename.endswith(".npy") for member in members):
            raise _refused(path, "a zip archive", UNPACK)
        if (size := sum(member.file_size for member in members)) > _most(path):
            raise _refused(path, f"an .npz of more than {_most(path)} bytes when decompressed", UNPACK)
        room = Room(size)
        return {m.filename.removesuffix(".npy"): _array_in(path, archive.open(m), room) for m in members}


def _array_in(path: Path, file: BinaryIO, room: Room) -> object:
    try:
        array = np.lib.format.read_array(file, allow_pickle=False)
        check_shape(array.shape, array.itemsize)
        room.take(array.nbytes)
    except DataError:
        raise
    except ValueError:  # objects: numpy has read the header, and a pickle follows
        array = safe_pickle.load(path, file, room)
    return array.item() if isinstance(array, np.ndarray) and array.ndim == 0 else array
