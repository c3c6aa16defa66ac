"""Used by every room. torch is imported inside functions: the command line and the statistics do not need it."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import torch

MODALITIES = ("text", "audio", "vision")  # the one order used everywhere: tokens, weights, colours
EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")  # the order of CMU-MOSEI's own label columns

SEAL = 64  # hexadecimal digits of a SHA-256, at the end of a sealed file

# Folders are found from this file's place and from TMT_DATA and TMT_RESULTS, never from the working folder
ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
FIGURE_STYLE = ROOT / "tmtlib" / "figures" / "study.mplstyle"  # for drawing and for saving


def results_folder(profile: str | None = None) -> Path:
    """TMT_RESULTS if set, else `results/` beside the package; with a profile, its subfolder."""
    base = Path(os.environ.get("TMT_RESULTS") or ROOT / "results").expanduser().resolve()
    return base / profile if profile else base


def figures_folder(profile: str) -> Path:
    """A profile's figures: `figures/` beside the package, or in the results folder where that is another one."""
    base = ROOT if results_folder() == ROOT / "results" else results_folder()
    return base / "figures" / profile


def data_folder() -> Path | None:
    """The user's data folder or file, from TMT_DATA; None when unset."""
    value = os.environ.get("TMT_DATA")
    return Path(value).expanduser().resolve() if value else None


def clip_labels() -> bool:
    """Whether labels of files are clipped to the range of their metric family, from TMT_CLIP_LABELS."""
    return os.environ.get("TMT_CLIP_LABELS", "") not in ("", "0")


def check_choice(name: str, value: object, allowed: tuple) -> None:
    """Raises ValueError naming the field, the value found and the values wanted."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; wanted one of {', '.join(map(repr, allowed))}")


def as_json(value: object, every_field: bool = True) -> object:
    """A dataclass as plain JSON types; without `every_field`, only the fields that can change a result."""
    if is_dataclass(value):
        kept = [f.name for f in fields(value) if every_field or _counts(f, getattr(value, f.name))]
        return {"type": type(value).__name__} | {name: as_json(getattr(value, name), every_field) for name in kept}
    if isinstance(value, Mapping):
        return {str(k): as_json(v, every_field) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v, every_field) for v in value]
    return value


def _counts(field: Field, value: object) -> bool:
    """Whether a field can change a result: its `identity`, or "if set": runs from before it keep their id."""
    identity = field.metadata.get("identity", True)
    return value != field.default if identity == "if set" else identity


def as_tuples(value: object) -> object:
    """TOML lists, nested ones too, as tuples."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def digest(value: object) -> str:
    """SHA-256, in hexadecimal, of the fields of a dataclass that can change a result."""
    return hashlib.sha256(json.dumps(as_json(value, every_field=False), sort_keys=True).encode()).hexdigest()


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes beside the target and to the disk, then renames: even where power fails, a reader sees the old file or
    the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes of this machine left half-written of files of runs, which are named by an id."""
    for path in folder.glob("*.part"):
        name = re.fullmatch(r"[0-9a-f]{12}\..+\.([1-9]\d{0,8})\.part", path.name)
        if name and not _alive(int(name[1])):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name == "nt":  # there `os.kill` would end it
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


class DamagedError(ValueError):
    """A file is not as it was written."""


def write_sealed(path: Path, content: bytes) -> None:
    """Writes content and its SHA-256 atomically; what reads .npz reads it with the SHA-256 behind it, too."""
    write_atomic(path, lambda file: file.write(content + hashlib.sha256(content).hexdigest().encode()))


def read_sealed(path: Path) -> bytes:
    """The content that `write_sealed` wrote. Raises DamagedError for a file that is empty, cut or changed."""
    whole = path.read_bytes()
    content, seal = whole[:-SEAL], whole[-SEAL:]
    if hashlib.sha256(content).hexdigest().encode() != seal:
        raise DamagedError(f"{path} is damaged or of an earlier version: its SHA-256 is not the one at its end")
    return content


def pick_device(name: str) -> "torch.device":
    """The device of "cpu", "cuda" or "auto" (cuda if present). Raises ValueError for another name or without a GPU."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda' but torch finds no NVIDIA GPU here; use --device cpu or auto")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}; wanted auto, cpu or cuda")
    return torch.device(name)


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """On a CPU, limits PyTorch to one thread: as fast for small models, and the same numbers on any machine."""
    import torch

    threads = torch.get_num_threads()
    try:
        if pick_device(device).type == "cpu":
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
