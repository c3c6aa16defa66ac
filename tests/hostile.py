"""Broken and hostile files of every format that tmtlib reads, drawn by a seed, and what became of reading one.

    python tests/hostile.py 5000        counts of outcomes, the slowest file and the most memory, by kind

Half are honest files with bits flipped, cut, spliced, or with opcodes put in; the others are made to run code, to fill
the memory, or never to end. A file is judged in a process of its own, which a crash of it ends.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import pickletools
import resource
import signal
import struct
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import h5py
import joblib
import numpy as np
from safetensors.numpy import save as safetensors

from tmtlib.data import mmsa
from tmtlib.data.schema import SPLITS, DataError
from tmtlib.data.text import open_encoder
from tmtlib.media import clips, csd, words
from tmtlib.study import saved

MARK = "was_run"  # the file that every payload makes, in the folder of the file judged
LONG, MORE = 10, 200 << 20  # seconds; bytes beside three times the file's
OPCODES = [ord(op.code) for op in pickletools.opcodes]
Rng = np.random.Generator


@dataclass(frozen=True)
class Verdict:
    """What became of reading a file."""

    outcome: str  # "read", "refused", or a fault: "code was run", "crash", "hang", "memory", or an error by name
    seconds: float  # of the CPU
    memory: int  # bytes more than before, at the peak

    @property
    def fault(self) -> bool:
        return self.outcome not in ("read", "refused")


# Honest files


def content(rng: Rng) -> dict:
    """A small feature file's content."""
    whole = {}
    for s, n in zip(SPLITS, (6, 3, 3), strict=True):
        part = {m: rng.normal(size=(n, 4, 3)).astype(np.float32) for m in ("text", "audio", "vision")}
        part |= {"id": [f"{s}$_${i}" for i in range(n)], "raw_text": np.array([f"word {i}" for i in range(n)], object)}
        whole[s] = part | {"regression_labels": rng.uniform(-3, 3, n).astype(np.float32), "audio_lengths": [4] * n}
    return whole


def honest_pickle(rng: Rng) -> bytes:
    return pickle.dumps(content(rng), int(rng.integers(6)))


def honest_joblib(rng: Rng) -> bytes:
    joblib.dump(content(rng), buffer := io.BytesIO())
    return buffer.getvalue()


def honest_npz(rng: Rng) -> bytes:
    np.savez_compressed(buffer := io.BytesIO(), **{s: np.array(part, object) for s, part in content(rng).items()})
    return buffer.getvalue()


def honest_csd(rng: Rng) -> bytes:
    return hdf5(lambda data: entry(data, "video[0]", rng.normal(size=(5, 3)).astype(np.float32)))


def honest_table(rng: Rng) -> bytes:
    lines = [f"c{i},c{i}.mp4,some words,{s},{rng.uniform(-1, 1):.2f}" for i, s in enumerate(SPLITS * 2)]
    return "\n".join(["id,path,transcript,split,label", *lines]).encode()


# Mutations


def flipped(raw: bytes, rng: Rng) -> bytes:
    changed = bytearray(raw)
    for at in rng.integers(len(raw), size=rng.integers(1, 9)):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(raw: bytes, rng: Rng) -> bytes:
    return raw[: rng.integers(len(raw))]


def spliced(raw: bytes, rng: Rng) -> bytes:
    a, b, c = sorted(map(int, rng.integers(len(raw), size=3)))
    return raw[:b] + raw[a:c] + raw[b:]


def with_opcodes(raw: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(len(raw)))
    return raw[:at] + bytes(rng.choice(OPCODES, rng.integers(1, 5)).tolist()) + raw[at + int(rng.integers(2)) :]


def mutated(raw: bytes, rng: Rng) -> bytes:
    return rng.choice([flipped, cut, spliced, with_opcodes])(raw, rng)


# Hostile pickles


class Calls:
    """Pickles as a call, and then perhaps a state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def short(*texts: str) -> bytes:
    return b"".join(b"\x8c" + bytes([len(text.encode())]) + text.encode() for text in texts)


def name(dotted: str) -> bytes:
    return short(*dotted.rsplit(".", 1)) + b"\x93"


def array(shape: tuple, dtype: object, stored: object) -> Calls:
    empty = np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b")
    return Calls(*empty, (1, shape, dtype, False, stored))


def doubled(one: bytes, pair: bytes, times: int) -> bytes:
    """A tree of 2 ** times leaves, each pair one object twice."""
    return one + b"".join(b"2" + pair for _ in range(times))


def as_features(value: object) -> dict:
    """A content in which one value stands for several."""
    return {s: part | {"text": value, "id": value} for s, part in content(np.random.default_rng(0)).items()}


COLLIDING = b"".join(b"\x8a\x10" + (k * (2**61 - 1)).to_bytes(16, "little") + b"N" for k in range(1, 60_000))
RUNS = ["os.system", "builtins.eval", "builtins.exec", "builtins.open", "subprocess.getoutput", "posix.system"]
RUNS += ["numpy.load", "numpy.fromfile", "builtins.getattr", "importlib.import_module", "numpy.core.os.system"]
RUNS += ["numpy.ndarray.tofile", "torch.load", "pickle.loads", "copyreg._reconstructor", "operator.attrgetter"]
PICKLES: dict[str, Callable[[Rng], bytes | object]] = {
    "memo": lambda rng: b"\x80\x04]r" + struct.pack("<I", 2 ** int(rng.integers(20, 32)) - 1) + b".",
    "memo by text": lambda rng: b"]p" + str(10 ** int(rng.integers(5, 20))).encode() + b"\n.",
    "hashed tuples": lambda rng: b"\x80\x04}" + doubled(b")", b"\x86", int(rng.integers(30, 120))) + b"Ns.",
    "deep key": lambda rng: b"\x80\x04})" + b"\x85" * int(10 ** rng.uniform(4, 5.3)) + b"Ns.",
    "deep": lambda rng: b"\x80\x04)" + b"\x85" * int(10 ** rng.uniform(4, 5.3)) + b".",
    "deep lists": lambda rng: b"\x80\x04" + b"]" * (n := int(10 ** rng.uniform(3, 5.3))) + b"a" * (n - 1) + b".",
    "deep marks": lambda rng: b"(" * int(10 ** rng.uniform(4, 6)),
    "lists": lambda rng: (
        b"\x80\x04(" + rng.choice([b"]", b"}", b")", b"N", b"(", b"}K\0"]) * int(10 ** rng.uniform(4, 6.3)) + b"t."
    ),
    "memoized": lambda rng: (
        b"\x80\x04(" + rng.choice([b"N\x94", b"]\x94", b"U\2ab\x94"]) * int(10 ** rng.uniform(4, 6.3)) + b"t."
    ),
    "shared": lambda rng: b"\x80\x04" + doubled(b"]", b"\x86", int(rng.integers(20, 200))) + b".",
    "shared lists": lambda rng: b"\x80\x04" + b"]" + b"q\0" + b"](h\0h\0eq\0" * int(rng.integers(20, 200)) + b".",
    "shared text": lambda rng: (
        b"\x80\x04X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\0(" + b"h\0" * 10**5 + b"t."
    ),
    "encoded": lambda rng: (
        b"\x80\x04X"
        + struct.pack("<I", 10**6)
        + b"a" * 10**6
        + b"q\0"
        + name("_codecs.encode")
        + b"q\1("
        + (b"h\1h\0" + short("latin1") + b"\x86R") * 10**4
        + b"t."
    ),
    "colliding": lambda rng: b"\x80\x04}(" + COLLIDING + b"u.",
    "length": lambda rng: (
        b"\x80\x05" + bytes(rng.choice(list(b"\x8d\x8e\x96"), 1)) + struct.pack("<Q", 2 ** int(rng.integers(20, 63)))
    ),
    "frame": lambda rng: b"\x80\x04\x95" + struct.pack("<Q", 2 ** int(rng.integers(5, 63))) + b"]" * 50 + b".",
    "large number": lambda rng: b"\x80\x04\x8b" + struct.pack("<I", 10**6) + b"\1" * 10**6 + b".",
    "hex number": lambda rng: b"I0x" + b"f" * 10**6 + b"\n.",
    "decimal": lambda rng: b"L" + b"9" * 10**6 + b"L\n.",
    "name": lambda rng: b"c" + b"a" * int(rng.integers(1, 10**7)) + b"\nb\n.",
    "names": lambda rng: b"\x80\x04" + name(str(rng.choice(RUNS))) + short(f"touch {MARK}") + b"\x85R.",
    "names of protocol 0": lambda rng: (
        b"c" + str(rng.choice(RUNS)).rpartition(".")[0].encode() + b"\nsystem\n(S'x'\ntR."
    ),
    "instance": lambda rng: rng.choice(
        [b"(S'x'\nios\nsystem\n.", b"(cos\nsystem\nS'x'\no.", b"cos\nsystem\n(S'x'\nt\x81."]
    ),
    "call": lambda rng: {"train": [Calls(rng.choice([os.system, eval, exec, open, np.load]), (f"touch {MARK}",))]},
    "build": lambda rng: (
        b"\x80\x04" + name(str(rng.choice(["numpy.dtype", "numpy.ndarray"]))) + b"}" + short("call") + b"Nsb."
    ),
    "build of text": lambda rng: (
        b"\x80\x04" + rng.choice([b"]", b"}", short("a")]) + b"}" + short("__class__") + b"Nsb."
    ),
    "codec": lambda rng: (
        b"\x80\x04" + name("_codecs.encode") + short("a", str(rng.choice(["zip", "rot13", "hex"]))) + b"\x86R."
    ),
    "shown": lambda rng: b"\x80\x04" + name("_codecs.encode") + short("a") + doubled(b")", b"\x86", 100) + b"\x86R.",
    "outside": lambda rng: b"\x80\x04" + doubled(b")", b"\x86", 100) + b"Q.",
    "short list": lambda rng: array((int(rng.integers(2, 10**9)),), np.dtype("O"), ["x"]),
    "shape": lambda rng: array(tuple(map(int, 2 ** rng.integers(0, 62, rng.integers(1, 70)))), np.dtype("f4"), b"1234"),
    "shape of nothing": lambda rng: array((2 ** int(rng.integers(10, 62)), 0), np.dtype("f4"), b""),
    "features of nothing": lambda rng: as_features(np.zeros((2**21, 0, 3), np.float32)),
    "empty text": lambda rng: array((2 ** int(rng.integers(10, 62)),), Calls(np.dtype, ("U0", False, True)), b""),
    "raw pointers": lambda rng: array((1,), Calls(np.dtype, ("O8", False, True)), b"12345678"),
    "flags": lambda rng: array(
        (1,), Calls(np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 63)), b"8" * 8
    ),
    "structured": lambda rng: array((1,), Calls(np.dtype, ([("a", "O")], False, True)), b"12345678"),
    "bad text": lambda rng: as_features(np.frombuffer(b"\xff" * 4 * 12, "U1").repeat(2)[:12]),
    "objects in objects": lambda rng: as_features(
        np.array([np.array([None, [np.array([1, "a"], object)]], object)] * 6, object)
    ),
    "one long text": lambda rng: as_features(["a" * 10**5] + ["b"] * 10**5),
    "one long row": lambda rng: as_features(
        [np.zeros((10**6, 3), np.float32)] + [np.zeros((1, 3), np.float32)] * 10**4
    ),
    "one array often": lambda rng: as_features([np.zeros((10**5, 3), np.float32)] * 10**4),
    "keys": lambda rng: {s: [{f"k{i}": 1} for i in range(10**4)] for s in SPLITS},
    "many keys": lambda rng: {s: dict.fromkeys(map("tekst{}".format, range(3 * 10**4)), 1) for s in SPLITS},
    "emotions": lambda rng: {
        s: part | {"emotion": [f"e{i}" for i in range(10**4)], "regression_labels": np.zeros(10**4)}
        for s, part in content(rng).items()
    },
    "types": lambda rng: {s: {k: rng.choice(WRONG) for k in part} for s, part in content(rng).items()},
    "one type": lambda rng: {
        s: part | {str(rng.choice([*part, "text_bert", "emotion_labels", "labels"])): rng.choice(WRONG)}
        for s, part in content(rng).items()
    },
    "config": lambda rng: (
        content(rng) | {"config": {k: rng.choice(WRONG) for k in ("tmtlib", "seq_lens", "feature_dims")}}
    ),
    "config of ours": lambda rng: (
        content(rng) | {"config": {"tmtlib": {k: rng.choice(WRONG) for k in ("family", "alignment", "emotions")}}}
    ),
    "odd keys": lambda rng: {
        s: part | {rng.choice(np.array([3, None, b"\xff", "a" * 10**6, "\x1b[2J\n"], object)): 1}
        for s, part in content(rng).items()
    },
}
WRONG = np.empty(14, object)
WRONG[:] = [
    None,
    1,
    1.5,
    "a",
    b"\xff",
    [],
    {},
    (),
    [[1, 2], [3]],
    ["a", 1],
    {"a": {"b": 1}},
    np.zeros((3, 0)),
    np.array(2.0),
    np.nan,
]


def hostile_pickle(rng: Rng) -> tuple[str, bytes]:
    kind = str(rng.choice([*PICKLES]))
    made = PICKLES[kind](rng)
    return kind, made if isinstance(made, bytes) else pickle.dumps(made, int(rng.integers(6)))


def packed(rng: Rng) -> tuple[str, bytes]:
    """A hostile pickle, or many zeros, compressed."""
    ways = {
        "gzip": gzip.compress,
        "bz2": partial(bz2.compress, compresslevel=1),
        "xz": partial(lzma.compress, preset=0),
        "zlib": zlib.compress,
    }
    way = str(rng.choice([*ways]))
    if rng.random() < 0.5:
        kind, raw = hostile_pickle(rng)
        return f"{kind} in {way}", ways[way](raw)
    zeros = bytes(int(10 ** rng.uniform(7, 8)))
    twice = gzip.compress(gzip.compress(zeros, 1), 1) if rng.random() < 0.3 else ways[way](zeros)
    return f"zeros in {way}", twice


# Hostile files of other formats


def npy(shape: tuple, dtype: str, raw: bytes) -> bytes:
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n" + raw


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", how) as archive:
        for file, raw in members.items():
            archive.writestr(file, raw)
    return buffer.getvalue()


def encrypted(raw: bytes) -> bytes:
    return raw.replace(b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\1").replace(
        b"PK\3\4\x14\0\0", b"PK\3\4\x14\0\1"
    )


OBJECTS = b"\x80\x04" + name("os.system") + short(f"touch {MARK}") + b"\x85R."
NPZ: dict[str, Callable[[Rng], bytes]] = {
    "objects": lambda rng: zipped({"train.npy": npy((1,), "|O", OBJECTS)}),
    "pickle": lambda rng: zipped({"train.npy": npy((1,), "|O", hostile_pickle(rng)[1])}),
    "shape": lambda rng: zipped(
        {"train.npy": npy(tuple(map(int, 2 ** rng.integers(0, 63, rng.integers(1, 40)))), "<f4", b"1234")}
    ),
    "shape of nothing": lambda rng: zipped({f"{s}_text.npy": npy((2**40, 0), "<f4", b"") for s in SPLITS}),
    "negative": lambda rng: zipped({"train.npy": npy((-1, -5), "<f4", b"1" * 20)}),
    "dtype": lambda rng: zipped(
        {
            f"{s}_text.npy": npy((2,), str(rng.choice(["<U0", "<M8[s]", "V4", "<c16", "i4,f4"])), b"1" * 32)
            for s in SPLITS
        }
    ),
    "header": lambda rng: zipped({"train.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"(" * 10**6}),
    "bomb": lambda rng: zipped({"train.npy": npy((10**8,), "|i1", bytes(10**8))}),
    "many": lambda rng: zipped({f"k{i}.npy": b"" for i in range(20_000)}),
    "paths": lambda rng: zipped(
        {f"../../{MARK}.npy": npy((1,), "<f4", b"1234"), "/etc/x.npy": npy((1,), "<f4", b"1234")}
    ),
    "encrypted": lambda rng: encrypted(zipped({"train.npy": npy((1,), "<f4", b"1234")})),
    "lzma": lambda rng: mutated(zipped({"train.npy": npy((10**6,), "|i1", bytes(10**6))}, zipfile.ZIP_LZMA), rng),
}


def hdf5(fill: Callable[[h5py.Group], None]) -> bytes:
    with h5py.File(buffer := io.BytesIO(), "w") as file:
        fill(file.create_group("words/data"))
    return buffer.getvalue()


def entry(data: h5py.Group, key: str, features: object = None, **stored) -> None:
    rows = features.shape[0] if hasattr(features, "shape") else stored["shape"][0]
    data[f"{key}/intervals"] = (
        np.stack([np.arange(rows), np.arange(rows) + 1.0], 1) if rows < 10**6 else np.zeros((1, 2))
    )
    data.create_dataset(f"{key}/features", data=features, **stored)


def linked(link: object) -> Callable[[h5py.Group], None]:
    def fill(data: h5py.Group) -> None:
        data["v[0]/intervals"] = np.zeros((1, 2))
        data["v[0]/features"] = link

    return fill


def virtual(data: h5py.Group) -> None:
    layout = h5py.VirtualLayout((1, 3), "f4")
    layout[0] = h5py.VirtualSource("/etc/passwd", "x", (3,), "f4")
    data.create_virtual_dataset("v[0]/features", layout)
    data["v[0]/intervals"] = np.zeros((1, 2))


def texts(n: int, length: int) -> np.ndarray:
    return np.array(["a" * length] + ["b"] * (n - 1), h5py.string_dtype())


CSD: dict[str, Callable[[Rng], bytes]] = {
    "external link": lambda rng: hdf5(linked(h5py.ExternalLink("/etc/passwd", "/x"))),
    "soft link": lambda rng: hdf5(
        linked(h5py.SoftLink(str(rng.choice(["/words", "/none", "../..", "/words/data/v[0]/features"]))))
    ),
    "external storage": lambda rng: hdf5(
        lambda d: entry(d, "v[0]", shape=(1, 3), dtype="f4", external=[("/etc/passwd", 0, 12)])
    ),
    "virtual": lambda rng: hdf5(virtual),
    "unwritten": lambda rng: hdf5(
        lambda d: entry(d, "v[0]", shape=(2 ** int(rng.integers(20, 40)), 64), dtype="f4", chunks=(1024, 64))
    ),
    "many unwritten": lambda rng: hdf5(
        lambda d: [entry(d, f"v[{i}]", shape=(9 * 10**5, 64), dtype="f4", chunks=(1024, 64)) for i in range(5)]
    ),
    "compressed": lambda rng: hdf5(lambda d: entry(d, "v[0]", np.zeros((10**6, 64), "i1"), compression="gzip")),
    "one long text": lambda rng: hdf5(lambda d: entry(d, "v[0]", texts(10**4, 10**5))),
    "types": lambda rng: hdf5(lambda d: entry(d, "v[0]", np.zeros(3, str(rng.choice(["c8", "i4,f4", "?", "S3"]))))),
    "group": lambda rng: hdf5(lambda d: d.create_group("v[0]/features")),
    "empty": lambda rng: hdf5(lambda d: None),
}


def table(*rows: str, head: str = "id,path,transcript") -> bytes:
    return "\n".join([head, *rows]).encode()


TABLES: dict[str, Callable[[Rng], bytes]] = {
    "leaves its folder": lambda rng: table(
        *(f"{i},{p},a" for i, p in enumerate(["../../../etc/passwd", "/etc/passwd", "~/x"]))
    ),
    "device": lambda rng: table(f"a,/dev/{rng.choice(['zero', 'stdin', 'random'])},a"),
    "NUL": lambda rng: table("a\0b,c\0d.mp4,\0"),
    "encoding": lambda rng: (
        table("ä,ö.mp4,ü").decode().encode(str(rng.choice(["utf-16", "latin-1", "utf-32", "utf-7"])))
    ),
    "huge field": lambda rng: table(f'a,a.mp4,"{"x" * 10**7}"'),
    "long path": lambda rng: table(f"a,{'x' * int(rng.integers(200, 10**5))},a"),
    "long names": lambda rng: table("a", head="x" * 10**6),
    "columns": lambda rng: table("," * 10**6, head="id,path" + "," * int(rng.choice([1, 10**6]))),
    "fields": lambda rng: table("a,b,c", "," * 10**6, "," * 10**6),
    "no end": lambda rng: table('a,"b' + "x" * 10**6),
    "rows": lambda rng: table(*["a"] * 10**6),
    "numbers": lambda rng: table("a,b,c,train,1e999", "d,e,f,test,nan", head="id,path,transcript,split,label"),
    "formula": lambda rng: table(f"=cmd|'touch {MARK}'!A1,$(touch {MARK}),`touch {MARK}`"),
}
WORDS: dict[str, Callable[[Rng], bytes]] = {
    "times": lambda rng: table("a,0,x", "b,1e999,-1", head="word,start,end"),
    "NUL": lambda rng: table("\0,\0,1", head="word,start,end"),
    "fields": lambda rng: table("a,0,1" + ",1" * 10**5, head="word,start,end"),
    "encoding": lambda rng: table("ä,0,1", head="word,start,end").decode().encode("utf-16"),
}


# Model folders: a file is written as `model/NAME` in a copy of an honest folder


@cache
def honest_model() -> dict[str, bytes]:
    """The files of an untrained model, by name, opened once here: what that imports, no child imports again."""
    from tmtlib.common import MODALITIES, as_json
    from tmtlib.data.schema import DataShape
    from tmtlib.models import build_model
    from tmtlib.study.methods import method_config
    from tmtlib.study.profiles import PROFILES

    shape = DataShape({m: (4, 3) for m in MODALITIES}, "mosi")
    model = build_model(method_config("tmt_amw", PROFILES["smoke"].model), shape)
    card = {"format": saved.FORMAT, "method": "tmt_amw", "profile": "smoke", "seed": 0, "task": "sentiment"}
    card |= {"data": {"name": "x", "origin": "x"}, "untrained": [], "metrics": {"test": {}}, "shape": as_json(shape)}
    card |= {"model": as_json(model.config), "training": as_json(PROFILES["smoke"].training)}
    moments = {f"{m}.{what}": np.ones(3, np.float32) for m in MODALITIES for what in ("mean", "sd")}
    files = {
        saved.CARD: json.dumps(card).encode(),
        saved.PARAMETERS: safetensors({k: v.numpy() for k, v in model.state_dict().items()}),
        saved.SCALER: safetensors(moments),
        saved.ERRORS: safetensors({"errors": np.linspace(0, 1, 40, dtype=np.float32)}),
    }
    card["sha256"] = {file: sha256(raw).hexdigest() for file, raw in files.items() if file != saved.CARD}
    files[saved.CARD] = json.dumps(card).encode()
    with tempfile.TemporaryDirectory() as folder:
        for file, raw in files.items():
            (Path(folder) / file).write_bytes(raw)
        saved.open_model(folder)
    return files


def edited(*places: str, to: object) -> bytes:
    card = json.loads(honest_model()[saved.CARD])
    at = card
    for place in places[:-1]:
        at = at[place]
    at[places[-1]] = to
    return json.dumps(card).encode()


def tensors(head: object, size: int | None = None, raw: bytes = b"") -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + raw


VALUES = [None, -1, 0, 10**6, 10**9, 2**70, 1.5, "a", [], {}, [[]], True, 1e308]
CARDS: dict[str, Callable[[Rng], bytes]] = {
    "deep": lambda rng: b"[" * 10**6,
    "large number": lambda rng: b'{"format": ' + b"9" * 10**6 + b"}",
    "lists": lambda rng: b"[" + b"[]," * 5 * 10**6 + b"[]]",
    "not UTF-8": lambda rng: b"\xff\xfe{}",
    "an item": lambda rng: edited(str(rng.choice(CARD_ITEMS)), to=VALUES[rng.integers(len(VALUES))]),
    "a setting": lambda rng: edited(
        "model",
        str(rng.choice([*json.loads(honest_model()[saved.CARD])["model"]])),
        to=VALUES[rng.integers(len(VALUES))],
    ),
    "a training setting": lambda rng: edited(
        "training",
        str(rng.choice([*json.loads(honest_model()[saved.CARD])["training"]])),
        to=VALUES[rng.integers(len(VALUES))],
    ),
    "wide": lambda rng: edited(
        "shape", "shapes", to={m: [4, int(10 ** rng.integers(5, 12))] for m in ("text", "audio", "vision")}
    ),
    "long": lambda rng: edited(
        "shape", "shapes", to={m: [int(10 ** rng.integers(5, 12)), 3] for m in ("text", "audio", "vision")}
    ),
    "emotions": lambda rng: edited("shape", "emotions", to=["a"] * 10**5),
    "class": lambda rng: edited("model", "type", to=str(rng.choice(["os.system", "BertTextConfig", "__class__"]))),
    "encoder": lambda rng: edited("model", to={"type": "BertTextConfig", "folder": "/etc", "path": "/etc"}),
}
CARD_ITEMS = ["format", "method", "shape", "model", "training", "untrained", "metrics", "data"]
TENSORS: dict[str, Callable[[Rng], bytes]] = {
    "length": lambda rng: tensors({}, 2 ** int(rng.integers(1, 63))),
    "offsets": lambda rng: tensors(
        {"errors": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]}}, raw=b"12345678"
    ),
    "negative": lambda rng: tensors(
        {"errors": {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}}, raw=b"12345678"
    ),
    "overlap": lambda rng: tensors(
        {k: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for k in "ab"}, raw=b"12345678"
    ),
    "huge header": lambda rng: tensors(b'{"' + b"a" * 2 * 10**7 + b'":1}'),
    "deep header": lambda rng: tensors(b"[" * 10**6),
    "dtype": lambda rng: tensors(
        {"errors": {"dtype": str(rng.choice(["BF16", "F8_E4M3", "I64", "O"])), "shape": [4], "data_offsets": [0, 8]}},
        raw=b"12345678",
    ),
    "of nothing": lambda rng: tensors({"errors": {"dtype": "F32", "shape": [2**40, 0], "data_offsets": [0, 0]}}),
    "pickle": lambda rng: OBJECTS,
}


def write_model(folder: Path, rng: Rng) -> str:
    """An honest model folder with one file changed; returns how."""
    folder.mkdir()
    files = dict(honest_model())
    which = str(rng.choice([*files]))
    kinds = CARDS if which == saved.CARD else TENSORS
    kind = str(rng.choice(["mutated", "missing", "link", "pipe", "folder", "empty", *kinds, *kinds]))
    raw = files.pop(which)
    for file, honest in files.items():
        (folder / file).write_bytes(honest)
    odd = {
        "missing": lambda p: None,
        "link": lambda p: p.symlink_to("/etc/passwd" if rng.random() < 0.5 else "/dev/zero"),
    }
    odd |= {"pipe": os.mkfifo, "folder": Path.mkdir, "empty": Path.touch}
    if kind in odd:
        odd[kind](folder / which)
    else:
        (folder / which).write_bytes(raw := mutated(raw, rng) if kind == "mutated" else kinds[kind](rng))
        if which != saved.CARD and rng.random() < 0.8:  # whoever changes a file can write its hash, too
            (folder / saved.CARD).write_bytes(edited("sha256", which, to=sha256(raw).hexdigest()))
    return f"{which.split('.')[0]}, {kind}"


# Drawing and judging

READERS: dict[str, Callable[[Path], object]] = {
    ".pkl": mmsa.read,
    ".npz": mmsa.read,
    ".p": mmsa.read_utterances,
    ".csd": csd.read_csd,
    ".csv": clips.read_table,
    ".table": mmsa.read,
    ".words": words.read_words,
    ".vectors": open_encoder,
    ".model": saved.open_model,
}
HONEST = {".pkl": [honest_pickle, honest_joblib], ".npz": [honest_npz], ".csd": [honest_csd], ".csv": [honest_table]}
CRAFTED = {".npz": NPZ, ".csd": CSD, ".csv": TABLES, ".table": TABLES, ".words": WORDS}
SHARES = {"pickle": 6, "mutated": 6, "packed": 1, "npz": 2, "other": 3, "model": 2}


def write(folder: Path, rng: Rng) -> tuple[str, Path]:
    """One file, or folder of a model, within a folder; its kind and its path."""
    what = str(rng.choice([*SHARES], p=np.array([*SHARES.values()]) / sum(SHARES.values())))
    if what == "model":
        path = folder / "kept.model"
        return f"model: {write_model(path, rng)}", path
    if what == "mutated":
        suffix = str(rng.choice([*HONEST], p=[0.6, 0.2, 0.1, 0.1]))
        kind, raw = "mutated", mutated(rng.choice(HONEST[suffix])(rng), rng)
    elif what in ("pickle", "packed"):
        suffix, (kind, raw) = str(rng.choice([".pkl", ".p"])), (packed if what == "packed" else hostile_pickle)(rng)
    else:
        suffix = ".npz" if what == "npz" else str(rng.choice([".csd", ".csv", ".table", ".words"]))
        kind = str(rng.choice([*CRAFTED[suffix]]))
        raw = CRAFTED[suffix][kind](rng)
        suffix = ".vectors" if suffix == ".npz" and rng.random() < 0.3 else suffix
    path = folder / f"file{suffix}"
    path.write_bytes(raw)
    return f"{suffix[1:]}: {kind}", path


def files(count: int, seed: int) -> Iterator[tuple[str, Path]]:
    """Kind and path of each file in turn; it is there until the next is asked for."""
    for i in range(count):
        with tempfile.TemporaryDirectory() as folder:
            yield write(Path(folder), np.random.default_rng([seed, i]))


def judge(path: Path) -> Verdict:
    """Reads the file in a process of its own, forked: what is imported here is not imported again."""
    inlet, outlet = os.pipe()
    if not (child := os.fork()):
        os._exit(_reported(path, outlet))
    os.close(outlet)
    with open(inlet, "rb") as pipe:
        before, said = int.from_bytes(pipe.read(8), "little"), pipe.read().decode("utf-8", "replace")
    _, status, used = os.wait4(child, 0)
    seconds, memory = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 - before
    size = sum(p.lstat().st_size for p in (path.iterdir() if path.is_dir() else [path]))
    outcome = said or f"crash (status {status})"
    if (path.parent / MARK).exists() or Path(MARK).exists():
        outcome = "code was run"
    elif seconds > LONG or os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        outcome = "hang"
    elif memory > 3 * size + MORE:
        outcome = f"memory ({outcome})"
    return Verdict(outcome, seconds, memory)


def _reported(path: Path, outlet: int) -> int:
    """In the child: writes the memory it has, reads, and writes the outcome; an alarm ends what takes too long."""
    os.write(outlet, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024).to_bytes(8, "little"))
    resource.setrlimit(resource.RLIMIT_CPU, (2 * LONG, 2 * LONG))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    signal.alarm(6 * LONG)  # a wait, as for a pipe, takes no time of the CPU
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 2)
    try:
        READERS[path.suffix](path)
        said = "read"
    except (DataError, FileNotFoundError) as error:
        said = "refused" if "\n" not in str(error) and len(str(error)) < 2100 else f"long message: {str(error)[:100]}"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"[:300]
    os.write(outlet, said.encode("utf-8", "replace"))
    return 0


def main(count: int, seed: int = 0) -> int:
    """Judges files, prints every fault and a summary; 1 if there was a fault."""
    outcomes, slowest, largest, faults = Counter(), (0.0, ""), (0, ""), 0
    for i, (kind, path) in enumerate(files(count, seed)):
        verdict = judge(path)
        outcomes[kind.split(":")[0], "fault" if verdict.fault else verdict.outcome] += 1
        slowest, largest = max(slowest, (verdict.seconds, kind)), max(largest, (verdict.memory, kind))
        if verdict.fault:
            faults += 1
            size = f"{verdict.seconds:.1f} s, {verdict.memory >> 20} MB"
            print(f"{seed}, {i}: {kind}: {verdict.outcome} ({size})", flush=True)
    for (kind, outcome), n in sorted(outcomes.items()):
        print(f"{kind:10} {outcome:10} {n:6}")
    print(
        f"slowest {slowest[0]:.1f} s ({slowest[1]}); most memory {largest[0] >> 20} MB ({largest[1]}); {faults} faults"
    )
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
