"""How long trainings will take, and what is said of it before they begin."""

from dataclasses import replace

import pytest

from tmtlib import common
from tmtlib.data.loading import resolve
from tmtlib.study import estimate, runs
from tmtlib.study.study import open_study


@pytest.fixture
def quick(own_results, monkeypatch):
    """Profile quick on a machine that trains an utterance in a millisecond at any frames."""
    monkeypatch.setattr(estimate, "pace", lambda *_: 1e-3)
    return open_study("quick", device="cpu")


def test_the_measured_pace_is_that_of_the_size(own_results):
    """Sixteen times the frames are slower, and what one training took is foretold within a factor of ten."""
    run = open_study("smoke", device="cpu").runs("tmt")[0]
    short, long = (estimate.pace(run.model, 64, (frames,) * 3, "cpu") for frames in (8, 128))
    assert 0 < short < long
    foretold = estimate.seconds([run], "cpu", 1)
    assert 0.1 < foretold / runs.ensure([run], "cpu", 1, progress=False)["seconds"].item() < 10


def test_a_machine_half_as_fast_takes_twice_as_long(quick, monkeypatch):
    todo = quick.runs("tmt", "mult", "tmt_amw")
    before = estimate.seconds(todo, "cpu", 2)
    monkeypatch.setattr(estimate, "pace", lambda *_: 2e-3)
    assert estimate.seconds(todo, "cpu", 2) == pytest.approx(2 * before)
    assert estimate.seconds(todo, "cpu", 1) == pytest.approx(4 * before), "one process alone, twice as long again"


def test_methods_and_sizes_take_what_they_take(quick):
    of = {m: estimate.seconds(quick.runs(m)[:1], "cpu", 1) for m in ("tmt", "mult", "late_fusion")}
    assert of["late_fusion"] < of["tmt"] < of["mult"] / 2
    unknown = replace(quick.runs("tmt")[0], method="mine")
    assert estimate.seconds([unknown], "cpu", 1) == of["tmt"], "as TMT"
    longer = replace(unknown, training=replace(unknown.training, epochs=80))
    assert 9 < estimate.seconds([longer], "cpu", 1) / of["tmt"] < 10, "ten times the epochs, and the same test data"
    assert estimate.seconds([unknown, longer], "cpu", 2) == estimate.seconds([longer], "cpu", 1), "waits for the last"


def test_finished_runs_take_no_time(quick):
    one, other, *_ = quick.runs("tmt")
    path = runs.record_path(one)
    path.parent.mkdir(parents=True)
    path.touch()
    assert estimate.seconds([one], "cpu", 1) == 0
    assert estimate.seconds([one, other, other], "cpu", 1) == estimate.seconds([other], "cpu", 1) > 0


def test_sizes_of_synthetic_data_and_of_files(own_results, feature_file):
    assert estimate.size(resolve("sims")) == ((1368, 456, 457), (39, 400, 55)), "as published"
    assert estimate.size(resolve(feature_file)) == ((96, 100, 100), (6, 6, 6))


def test_without_committed_runs_every_method_takes_as_long_as_tmt(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "ROOT", tmp_path)
    assert estimate.times_tmt.__wrapped__() == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59, "less than a minute"), (61, "about 1 minute"), (700, "about 12 minutes"), (5399, "about 90 minutes")]
    + [(10_000, "about 3 hours"), (180_000, "about 2 days")],
)
def test_a_time_in_words(seconds, text):
    assert estimate.said(seconds) == text


def test_more_than_five_minutes_are_said_before_they_begin(quick, monkeypatch, capsys):
    class Begun(Exception):
        pass

    def begin(*_):
        raise Begun

    monkeypatch.setattr(runs, "in_parallel", begin)
    todo = quick.runs("tmt", "tmt_amw")
    for some, progress in ((todo, False), (todo[:3], True)):
        with pytest.raises(Begun):
            runs.ensure(some, "cpu", 1, progress)
        assert capsys.readouterr().out == ""
    monkeypatch.setattr(estimate, "pace", lambda *_: 1e-2)
    with pytest.raises(Begun):
        runs.ensure(todo, "cpu", 2)
    said = capsys.readouterr().out
    assert said == "Training 18 runs takes about 15 minutes on 2 cores; finished ones are kept, so it may be stopped.\n"


def test_nothing_is_measured_for_a_small_call(smoke, monkeypatch):
    monkeypatch.setattr(estimate, "pace", lambda *_: pytest.fail("measured"))
    runs._say_long(smoke.runs("tmt", "tmt_amw"), "cpu", 1)
