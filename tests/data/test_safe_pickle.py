"""Reading pickles without running them: what is read, what is refused by name, and that nothing was run."""

import codecs
import collections
import datetime
import decimal
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from tmtlib.data import safe_pickle
from tmtlib.data.safe_pickle import RefusedPickle
from tmtlib.data.schema import DataError

CONTENT = {
    "C order": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "axes moved": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "strided": np.arange(9)[::2],
    "big-endian": np.arange(3, dtype=">f4"),
    "half": np.ones(2, np.float16),
    "bool": np.array([True, False]),
    "text array": np.array(["video$_$1", "über", "", "不"]),
    "bytes array": np.array([b"ab", b"c"]),
    "objects": np.array(["a", None, 1.5, [1, 2], {"k": np.arange(2)}, np.float32(3)], dtype=object),
    "empty": np.zeros((0, 3)),
    "no axes": np.array(2.5),
    "scalars": [np.float32(1.5), np.int64(-3), np.str_("s"), np.str_(""), np.bool_(True)],
    "plain": {
        "text": "t",
        "number": 1,
        "float": 2.5,
        "none": None,
        "yes": True,
        "tuple": (1, ("a", [2])),
        "bytes": b"x",
    },
    "large": 10**30,
}


@pytest.fixture
def load(tmp_path):
    """Writes content as a pickle (bytes: as they are) and reads it back."""

    def written_and_read(content: object, protocol: int = 4) -> object:
        path = tmp_path / "file.pkl"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
        return safe_pickle.load(path)

    return written_and_read


def assert_same(found: object, wanted: object):
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        found, wanted = list(found.values()), list(wanted.values())
    if isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        if not wanted.dtype.hasobject:
            assert np.array_equal(found, wanted)
            return
    if isinstance(wanted, (list, tuple, np.ndarray)):
        assert len(found) == len(wanted)
        for f, w in zip(found, wanted, strict=True):
            assert_same(f, w)
    else:
        assert found == wanted


class Calls:
    """Pickles as a call of any function with any arguments, and then perhaps a state."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", CONTENT)
def test_plain_content_is_what_an_ordinary_load_gives(load, name, protocol):
    ordinary = pickle.loads(pickle.dumps({name: CONTENT[name]}, protocol=protocol))
    assert_same(load({name: CONTENT[name]}, protocol), ordinary)


def test_shared_containers_are_read_and_circular_ones_refused(load):
    array = np.arange(3)
    shared = [array, (array,), {"a": array}]
    assert_same(load(shared), shared)
    shared.append(shared)
    with pytest.raises(DataError, match="nested deeper than 32, or one holds itself"):
        load(shared)


def test_pickle_of_python_2_and_numpy_1(load):
    """Written by hand: byte strings for text and array content, as cPickle wrote them."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I3\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\n"
        b"tR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\x00\\x80?\\x00\\x00\\x00@\\x00\\x00@@'\ntb"
    )
    found = load(b"(S'key'\n" + array + b"d.")
    assert_same(found, {"key": np.array([1, 2, 3], np.float32)})


def test_scalar_of_python_2(load):
    found = load(b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'f4'\nI0\nI1\ntRS'\\x00\\x00\\x80?'\ntR.")
    assert_same(found, np.float32(1))


@pytest.mark.parametrize("codec", ["rot13", "zip", "utf-7", "no_such"])
def test_no_other_codec_is_run(load, codec):
    with pytest.raises(RefusedPickle, match=f"asks for the codec '{codec}'"):
        load(Calls(codecs.encode, "text", codec))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "argument", "name"),
    [
        (os.system, "touch {}", r"(posix|nt)\.system"),
        (eval, "open({!r}, 'w')", r"(builtins|__builtin__)\.eval"),
        (exec, "open({!r}, 'w')", r"(builtins|__builtin__)\.exec"),
        (open, "{}", r"(_io|io)\.open"),
        (getattr, "{}", r"(builtins|__builtin__)\.getattr"),
        (subprocess.Popen, "touch {}", r"(subprocess|commands)\.Popen"),
        (np.load, "{}", r"numpy\.load"),
        (np.fromfile, "{}", r"numpy.*fromfile"),
        (bytearray, "{}", r"(builtins|__builtin__)\.bytearray"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_a_call_is_refused_by_name_and_not_made(load, tmp_path, function, argument, name, protocol):
    mark = tmp_path / "was_run"
    with pytest.raises(RefusedPickle, match=rf"file\.pkl asks for {name}, which.*nothing was run") as refused:
        load({"train": [Calls(function, argument.format(str(mark)))]}, protocol)
    assert not mark.exists()
    assert isinstance(refused.value, DataError), "one kind of error to catch"


def test_the_payloads_of_these_tests_do_run_in_an_ordinary_load(tmp_path):
    mark = tmp_path / "was_run"
    pickle.loads(pickle.dumps(Calls(os.system, f"touch {mark}")))
    assert mark.exists()


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "core.os.system"),
        ("numpy", "ndarray.fromfile"),
        ("numpy", "dtype.type"),
        ("numpy._core.multiarray", "_reconstruct.__globals__"),
        ("numpy._core.multiarray", "fromfile"),
        ("tmtlib.data.safe_pickle", "os"),
        ("copyreg", "_reconstructor"),
    ],
)
def test_dotted_and_neighbouring_names_are_refused(load, module, name):
    with pytest.raises(RefusedPickle, match=rf"asks for {module}\.{name}, "):
        load(b"\x80\x04" + short(module) + short(name) + b"\x93.")


REBUILD = np._core.multiarray._reconstruct
EMPTY = (np.ndarray, (0,), b"b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # numpy reads 1000 objects from a list of one: memory beyond it becomes pointers
        (Calls(REBUILD, *EMPTY, state=(1, (1000,), np.dtype("O"), False, ["x"])), r"an array \(1000,\) of 1 objects"),
        # ... or takes bytes for pointers, once the object flag is gone from dtype "O"
        (
            Calls(REBUILD, *EMPTY, state=(1, (1,), Calls(np.dtype, "O8", False, True), False, b"12345678")),
            r"an array \(1,\) of 8 objects",
        ),
        (Calls(np.dtype, [("a", "O")]), "a numpy array of dtype a list"),
        (Calls(np.dtype, "O,f4"), "a numpy array of dtype 'O,f4'"),
        (np.zeros(2, "datetime64[s]"), "a numpy array of dtype 'M8'"),
        (np.zeros(2, [("a", "f4")]), "a numpy array of dtype 'V4'"),
        (np.ma.masked_array([1, 2]), r"numpy\.ma"),
        (np.memmap, r"numpy\.memmap"),
        (np.ndarray, "a function"),
        ({"k": {1, 2}}, "a set"),
        ({("k", frozenset([1])): 1}, "a frozenset"),
        (np.array([{1}, None], dtype=object), "a set"),
    ],
)
def test_tricks_with_arrays_are_refused(load, content, message):
    with pytest.raises(RefusedPickle, match=f"asks for {message}"):
        load(content)


def test_flags_in_a_dtype_state_are_ignored(load):
    """Otherwise eight bytes of a float64 would be used as the address of an object."""
    flags = (3, "<", None, None, None, -1, -1, 63)
    found = load(
        Calls(REBUILD, *EMPTY, state=(1, (1,), Calls(np.dtype, "f8", False, True, state=flags), False, b"8" * 8))
    )
    assert found.dtype == np.float64 and found.shape == (1,)


def test_admitted_functions_cannot_be_changed(load):
    """BUILD would set attributes of a function that later, ordinary files are read with."""
    with pytest.raises(RefusedPickle, match="a change to a function"):
        load(b"\x80\x04" + short("numpy") + short("dtype") + b"\x93}" + short("call") + b"Nsb.")
    assert np.array_equal(load(np.arange(3)), np.arange(3))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (torch.zeros(2), r"torch\._utils\._rebuild_tensor_v2"),
        (pd.Series([1, 2]), r"pandas\."),
        (pd.DataFrame({"a": [1]}), r"pandas\."),
        (collections.OrderedDict(a=1), r"collections\.OrderedDict"),
        (collections.defaultdict(list), r"collections\.defaultdict"),
        (datetime.date(2020, 1, 1), r"datetime\.date"),
        (decimal.Decimal(1), r"decimal\.Decimal"),
        (range(3), r"builtins\.range"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_other_types_are_refused_by_name_with_what_to_do(load, content, name):
    with pytest.raises(
        RefusedPickle, match=rf"asks for {name}.*save it again with plain numpy arrays \(a torch tensor"
    ):
        load({"train": {"text": content}})


def test_reference_to_an_outside_object_is_refused(load, tmp_path):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return "weights/0" if value == "outside" else None

    with open(tmp_path / "outside.pkl", "wb") as file:
        Pickler(file).dump(["outside"])
    with pytest.raises(RefusedPickle, match="outside object 'weights/0'"):
        safe_pickle.load(tmp_path / "outside.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_truncation_is_told_as_such(load, protocol):
    whole = pickle.dumps({"text": np.arange(6.0).reshape(2, 3).T, "id": ["a", "b"]}, protocol=protocol)
    for size in range(1, len(whole), 7):
        with pytest.raises(DataError, match=rf"not a whole pickle.*{size} bytes; wanted a complete feature file"):
            load(whole[:size])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file, 0 bytes"),
        (b"<!DOCTYPE html><html>Sign in</html>", "begins with b'<!DOCTYPE ht' .a web page, perhaps a download"),
        (b"\n <html>", "a web page"),
        (b"PK\x03\x04" + b"\0" * 40, r"begins with b'PK\\x03\\x04"),
        (b"split,id,label\n", "not a whole pickle"),
        (b"\x80\x63", "unsupported pickle protocol"),
        (b"\x80\x04" + b"(" * 5000 + b"t" * 5000 + b".", "nested deeper than 32"),
    ],
    ids=["empty", "web page", "indented", "zip", "csv", "protocol 99", "nested"],
)
def test_a_file_that_is_no_pickle_says_what_it_is(load, content, message):
    with pytest.raises(DataError, match=message):
        load(content)


TEXT = b"X\x40\x42\x0f\x00" + b"a" * 10**6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04}" + b")" + b"2\x86" * 100 + b"Ns.", "a dict with the key a tuple"),  # hashed in 2 ** 100 steps
        (b"\x80\x04}\x8a\x08" + b"\xff" * 7 + b"\x1fNs.", "a dict with the key a int"),  # 2 ** 61 - 1, hashed as 0
        (b"\x80\x04]" + b"2\x86" * 100 + b".", "nested deeper|would take more"),
        (b"\x80\x04(" + TEXT + b"q\x00" + b"h\x00" * 1000 + b"t.", "would take more than .* bytes of memory"),
        (b"\x80\x04(" + b"]" * 10**6 + b"t.", "would take more than .* bytes of memory"),
        (b"\x80\x05\x96" + b"\xff" * 4 + bytes(4), "would take more than .* bytes of memory"),
        (b"I0x" + b"f" * 1000 + b"\n.", "a number of 4000 bits"),
        (b"c" + b"a" * 10**6 + b"\nb\n.", r"asks for a{200}, which"),
        (b"\x80\x04]}" + short("append") + b"Nsb.", "a state of a list"),
        (b"\x80\x04]K\x00Ns.", "an item of a list"),
    ],
)
def test_what_would_never_end_or_fill_the_memory_is_refused_in_a_line(load, content, message):
    with pytest.raises(DataError, match=message) as refused:
        load(content)
    assert len(str(refused.value)) < 2000


def test_a_memo_of_any_index_takes_no_memory(load):
    assert load(b"]r\xff\xff\xff\x0f.") == []


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pkl"):
        safe_pickle.load(tmp_path / "nowhere.pkl")


def test_reading_imports_nothing_that_the_file_names(tmp_path):
    (tmp_path / "file.pkl").write_bytes(b"\x80\x04" + short("antigravity") + short("fly") + b"\x93.")
    code = (
        "import sys; from tmtlib.data import safe_pickle\n"
        "try: safe_pickle.load(sys.argv[1])\n"
        "except safe_pickle.RefusedPickle as e: print('antigravity.fly' in str(e), 'antigravity' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file.pkl")], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["True", "False"]
