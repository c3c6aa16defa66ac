"""The state of a training at an epoch's end, from which it goes on bit for bit."""

import io
import signal
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from tmtlib.common import DamagedError, read_sealed, write_sealed

EVERY = 60.0  # seconds between checkpoints; a shorter training leaves none
TERMINATED = 128 + signal.SIGTERM  # exit code


class Checkpoint:
    """A file that a training of one seed is kept in, or none (None).

    While it is entered, SIGTERM ends the process (exit code 143) only after the epoch's end, when the training is kept.
    """

    def __init__(self, path: Path | None):
        self.path, self.terminated = path, False

    def __enter__(self) -> "Checkpoint":
        self.handles = self.path is not None and threading.current_thread() is threading.main_thread()
        if self.handles:
            self.before = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, *error) -> None:
        if self.handles:
            signal.signal(signal.SIGTERM, self.before)

    def _terminate(self, *signal_and_frame) -> None:
        self.terminated = True

    def resume(self, parts: Mapping, shuffle: torch.Generator, device: torch.device) -> None:
        """Restores the parts of a training, which have `state_dict` and `load_state_dict`, and the random generators
        as they were kept. A damaged file is not used, with a warning."""
        self.parts, self.shuffle, self.device, self.written = parts, shuffle, device, time.monotonic()
        if self.path is None or not self.path.exists():
            return
        try:
            state = torch.load(io.BytesIO(read_sealed(self.path)), weights_only=True)
        except DamagedError as error:
            warnings.warn(f"{error}; the training begins anew", stacklevel=4)
            return
        for name, part in parts.items():
            part.load_state_dict(state[name])
        shuffle.set_state(state["shuffle"])
        torch.set_rng_state(state["random"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["random_on_cuda"], device)

    def epoch_ended(self) -> None:
        """Keeps the training if the last time was `EVERY` seconds ago or SIGTERM has come."""
        if self.path is not None and (self.terminated or time.monotonic() - self.written >= EVERY):
            state = {name: part.state_dict() for name, part in self.parts.items()}
            state |= {"shuffle": self.shuffle.get_state(), "random": torch.get_rng_state()}
            if self.device.type == "cuda":
                state["random_on_cuda"] = torch.cuda.get_rng_state(self.device)
            file = io.BytesIO()
            torch.save(state, file)
            write_sealed(self.path, file.getvalue())
            self.written = time.monotonic()
        if self.terminated:
            raise SystemExit(TERMINATED)
