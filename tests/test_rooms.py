"""The rooms of the library: a file imports its own room and rooms to its left, lazily too; the library stays small."""

import ast

from tmtlib.common import ROOT

ORDER = "common < stats < data < media, models, paper < training < study < analysis, figures < __main__"
LEVEL = {room: i for i, rooms in enumerate(ORDER.split(" < ")) for room in rooms.split(", ")}
LINES = 17_500  # 12,390 before clips, kept models, faults, clusters, pages; lower it with every cut


def imported_rooms(tree: ast.Module) -> set[str]:
    """The rooms that a file's imports of tmtlib name, wherever in the file they stand."""
    rooms = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tmtlib":
            rooms |= {f"{node.module}.{alias.name}".split(".")[1] for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tmtlib.")}
    return rooms & set(LEVEL)


def test_imports_go_down_only():
    for path in (ROOT / "tmtlib").rglob("*.py"):
        own = path.relative_to(ROOT / "tmtlib").parts[0].removesuffix(".py")
        for room in imported_rooms(ast.parse(path.read_text(encoding="utf-8"))) if own != "__init__" else ():
            assert room == own or LEVEL[room] < LEVEL[own], (path, room)


def test_no_file_imports_in_a_circle():
    files = {path: ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tmtlib").rglob("*.py")}
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in files}

    def needs(path):
        for node in ast.walk(files[path]):
            if isinstance(node, ast.ImportFrom) and node.module in names:
                yield from (
                    names.get(f"{node.module}.{alias.name}", names[node.module])
                    for alias in node.names
                    if node.module != "tmtlib" or f"tmtlib.{alias.name}" in names
                )

    done, trail = set(), []

    def walk(path):
        assert path not in trail, [p.name for p in (*trail[trail.index(path) :], path)]
        if path not in done:
            trail.append(path)
            for other in needs(path):
                walk(other)
            done.add(trail.pop())

    for path in files:
        walk(path)


def test_the_library_is_small():
    top = {p.name for p in (ROOT / "tmtlib").iterdir() if not p.name.startswith("__") or p.name == "__main__.py"}
    assert top - {"__pycache__"} == {*LEVEL} - {"common", "__main__"} | {"common.py", "__main__.py"}
    lines = sum(len(p.read_text(encoding="utf-8").splitlines()) for p in (ROOT / "tmtlib").rglob("*.py"))
    assert lines <= LINES, f"{lines} lines; wanted at most {LINES}: cut something before adding"
