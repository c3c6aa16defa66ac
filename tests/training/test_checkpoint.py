"""A training that is interrupted goes on where it was: the same parameters and history, to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from model_helpers import SMALL, protocol, synthetic
from test_fit import assert_same

from tmtlib.common import ROOT
from tmtlib.training import checkpoint
from tmtlib.training import fit as fit_module
from tmtlib.training.fit import fit

AMW = replace(SMALL, weighting="gated", mixup="correct", schedule="warmup_cosine")


def train(path=None, epochs=6, **changes):
    data = synthetic()
    changes = {"patience": None, "learning_rate": 1e-2} | changes
    return fit(AMW, protocol(epochs=epochs, **changes), data.train, data.valid, data.shape, (3,), "cpu", path)[0]


def interrupted(monkeypatch, path, after: int, **changes) -> None:
    """Trains with a checkpoint at each epoch's end; in the epoch after so many something breaks."""
    epochs, epoch = iter(range(after)), fit_module.train_epoch

    def breaking(*arguments):
        if next(epochs, None) is None:
            torch.rand(3)
            raise KeyboardInterrupt
        return epoch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "EVERY", 0.0)
        patch.setattr(fit_module, "train_epoch", breaking)
        with pytest.raises(KeyboardInterrupt):
            train(path, **changes)


@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.parametrize("changes", [{}, {"patience": 2, "learning_rate": 3e-2}], ids=["all epochs", "stops early"])
def test_a_resumed_training_is_the_uninterrupted_one(monkeypatch, tmp_path, after, changes):
    whole = train(epochs=8, **changes)
    after = min(after, len(whole.history) - 1)
    interrupted(monkeypatch, tmp_path / "kept", after, epochs=8, **changes)
    torch.manual_seed(99)
    resumed = train(tmp_path / "kept", epochs=8, **changes)
    assert_same(resumed, whole)
    assert (resumed.weights == whole.weights).all() and resumed.other_epoch == whole.other_epoch
    assert all(x.equal(whole.other_state[name]) for name, x in resumed.other_state.items())


def test_a_short_training_leaves_no_checkpoint(tmp_path):
    train(tmp_path / "kept", epochs=2)
    assert not [*tmp_path.iterdir()]


def test_a_damaged_checkpoint_is_not_used(monkeypatch, tmp_path):
    path = tmp_path / "kept"
    interrupted(monkeypatch, path, 3)
    content = path.read_bytes()
    path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    with pytest.warns(UserWarning, match="kept is damaged .*; the training begins anew"):
        resumed = train(path)
    assert_same(resumed, train())


def test_one_checkpoint_is_of_one_seed(tmp_path):
    data = synthetic()
    with pytest.raises(ValueError, match="2 seeds and one checkpoint"):
        fit(SMALL, protocol(), data.train, data.valid, data.shape, (0, 1), "cpu", tmp_path / "kept")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_sigterm_keeps_the_training(tmp_path):
    code = textwrap.dedent(f"""
        import sys; sys.path[:0] = ["tests", "tests/training"]
        from pathlib import Path
        from test_checkpoint import fit_module, train
        epoch = fit_module.train_epoch
        fit_module.train_epoch = lambda *a: (print(flush=True), epoch(*a))[1]
        train(Path({str(tmp_path / "kept")!r}), epochs=2000)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143 and (tmp_path / "kept").exists()
