"""What keeps a damaged or hostile file from filling the memory, or from ending in anything but a DataError."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tmtlib.data.schema import DataError

BASE, TIMES = 100 << 20, 5  # bytes that any content may take, and how many for each byte of its file
EMPTY = 1 << 20  # largest shape, zeros left out, of an array without content: a loop over it costs nothing
SYSTEM = (FileNotFoundError, PermissionError, IsADirectoryError, Warning)  # not the content's fault


class Room:
    """The memory, in bytes, that the content of a file of `size` bytes may still take."""

    def __init__(self, size: int):
        self.whole = self.left = BASE + TIMES * size

    def take(self, size: int) -> int:
        """The size, taken. Raises DataError where too little is left."""
        self.left -= size
        if self.left < 0:
            raise DataError(f"its content would take more than {self.whole} bytes of memory, too much for its size")
        return size


@contextmanager
def reading(path: str | Path, wanted: str) -> Iterator[None]:
    """Makes a DataError of whatever a damaged file makes a reader raise, except for a file that cannot be opened."""
    try:
        yield
    except SYSTEM:
        raise
    except DataError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from None
    except Exception as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}); wanted {wanted}") from error


def check_shape(shape: Sequence[int], itemsize: int) -> None:
    """Raises DataError for a shape that cannot be, or that is large and yet without content."""
    fits = type(shape) is tuple and len(shape) <= 32 and all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
    if not fits or (not itemsize * math.prod(shape) and math.prod(n or 1 for n in shape) > EMPTY):
        shown = shape if type(shape) is tuple and all(type(n) is int for n in shape) else type(shape).__name__
        raise DataError(f"an array has the shape {shown}; wanted one that its content fills")
