"""What trainings may see: no code of the library hands `fit` the test split as held-out data, but one function."""

import ast

from tmtlib.common import ROOT

HELD_OUT = 3  # the place of `held_out` among the arguments of `fit`
SELECTION = ("analysis/protocol.py", "_selected")  # what `protocol.selection` computes for each run


def trainings(tree: ast.Module) -> list[tuple[str, str]]:
    """Each call of the `fit` of `tmtlib.training.fit`: the function it stands in, and its held-out split as source."""
    calls = []
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "fit":
                given = {k.arg: k.value for k in node.keywords} | dict(enumerate(node.args))
                if held_out := given.get("held_out", given.get(HELD_OUT)):  # scikit-learn's `fit` has two arguments
                    calls.append((function.name, ast.unparse(held_out)))
    return calls


def hidden(tree: ast.Module) -> list[str]:
    """Uses of `fit` that `trainings` does not see: under another name, as a value, or with * or ** arguments."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported = [a for node in imports if node.module == "tmtlib.training.fit" for a in node.names if a.name == "fit"]
    if not imported:
        return []  # another `fit`
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "fit"]
    names = {node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "fit"}
    values = names - {node.func for node in calls}
    unpacked = [x for node in calls for x in node.args if isinstance(x, ast.Starred)]
    unpacked += [x.value for node in calls for x in node.keywords if x.arg is None]
    return [ast.unparse(node) for node in (*(a for a in imported if a.asname), *values, *unpacked)]


def test_only_the_protocol_s_selection_holds_test_out():
    held_out = {}
    for path in (ROOT / "tmtlib").rglob("*.py"):
        tree, name = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT / "tmtlib").as_posix()
        assert not hidden(tree), name
        for function, split in trainings(tree):
            held_out.setdefault((name, function), set()).add(split)
    assert held_out.pop(SELECTION) == {"data.test", "data.valid"}
    assert held_out.keys() >= {("study/runs.py", "_fit"), ("analysis/protocol.py", "_test_scores")}
    assert all(splits == {"data.valid"} for splits in held_out.values()), held_out


def test_what_it_looks_for_is_seen():
    source = """
def cheats(data):
    fit(config, training, data.train, data.test, data.shape)
    training.fit(config, training, data.train, held_out=data.test, shape=data.shape)
    ridge.fit(x, y)
"""
    assert trainings(ast.parse(source)) == [("cheats", "data.test")] * 2
    start = "from tmtlib.training.fit import fit"
    assert not hidden(ast.parse(f"{start}\nfit(config, training, train, valid, shape)"))
    for use in (" as learn", "\npartial(fit, config)", "\nfit(*arguments)", "\nfit(**arguments)"):
        assert hidden(ast.parse(start + use)), use
