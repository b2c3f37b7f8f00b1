"""Who may import whom, read from the source: the house's only law that no linter knows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOLO = TESTS.parent / "solo"
# Room -> rooms it may import from (beside itself). Torch-free ground floor: errors, taxonomy.
GROUND = {"cores", "errors", "files", "plugin", "screen", "taxonomy"}
ALLOWED = {
    "errors": set(),
    "cores": set(),
    "screen": {"errors"},
    "files": {"errors"},
    "taxonomy": {"errors"},
    "plugin": {"errors"},
    "distributed": set(),
    "precision": set(),
    "rng": set(),
    "args": GROUND | {"data", "methods", "hex", "compat"},  # the catalogues and compat.keys only, see below
    "data": GROUND | {"distributed"},
    "nn": GROUND | {"distributed"},
    "losses": GROUND | {"distributed"},
    "hex": GROUND | {"distributed", "losses", "eval", "args"},  # args in objective.py only
    "backbones": GROUND | {"distributed", "data"},
    "eval": GROUND | {"distributed"},
    "analysis": GROUND | {"args", "eval"},
    "weights": {"errors"},
    "checkpoint": GROUND | {"weights"},
    "methods": GROUND
    | {"distributed", "nn", "losses", "hex", "backbones", "args", "data", "eval", "optim", "checkpoint", "compat"}
    | {"weights"},
    "optim": GROUND,
    "compat": GROUND | {"distributed", "args", "data", "nn", "optim", "losses", "hex", "methods", "eval"},
    "callbacks": GROUND | {"distributed", "args", "data", "eval", "analysis", "checkpoint", "hex"},
    "export": GROUND | {"backbones"},
    "run": GROUND
    | {"export", "weights"}
    | {"distributed", "args", "data", "nn", "methods", "callbacks", "checkpoint", "analysis", "eval", "backbones"}
    | {"hex", "losses"},
    "doctor": GROUND
    | {"distributed", "args", "data", "nn", "losses", "hex", "backbones", "methods", "callbacks", "checkpoint", "run"}
    | {"eval", "compat"},
    "cli": GROUND | {"args", "run", "compat"},
    "__main__": {"cli"},
    "api": {"args", "cli", "errors", "run"},
    "experiment": GROUND | {"api", "args", "analysis", "callbacks", "checkpoint", "cli", "eval", "run"},
    "__init__": {"compat", "errors", "taxonomy", "losses", "hex", "methods", "run", "api"},  # all but compat lazily
}
for rooms in ALLOWED.values():
    rooms |= {"precision", "rng"} if "distributed" in rooms else set()  # whoever computes with tensors
TORCH_FREE = ["compat/keys.py", "compat/args.py", "compat/paths.py", "plugin.py"]
TORCH_FREE += [
    "methods/catalogue.py",
    "methods/__init__.py",
    "hex/catalogue.py",
    "hex/__init__.py",
]
TORCH_FREE += ["args", "cli.py", "api.py", "errors.py", "taxonomy.py", "__init__.py", "__main__.py"]
TORCH_FREE += ["cores.py", "screen.py"]
TORCH_FREE += ["data/catalogue", "data/labels/trees.py", "data/storage", "data/layouts"]
HEAVY = {"torch", "torchvision", "lightning", "timm", "lightly", "wandb", "sklearn", "umap", "matplotlib"}


def imports(path: Path, top_level: bool = False, run_time: bool = False) -> set[str]:
    """Modules that a file imports, in dotted form.

    With `top_level` only those imported when it is imported, with `run_time` without what only type checkers read.
    """
    tree = ast.parse(path.read_text())
    if run_time:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
                node.body = []
    nodes = tree.body if top_level else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: import *"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    return path.relative_to(SOLO).parts[0].removesuffix(".py")


FILES = sorted(SOLO.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOLO)))
def test_directions(path):
    here = room(path)
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "solo" or len(parts) < 2 or parts[1] == here or not any(room(f) == parts[1] for f in FILES):
            continue
        assert parts[1] in ALLOWED[here], f"{here} may not import {module}"
        if here == "args" and parts[1] in ("data", "methods", "hex"):
            assert parts[2] == "catalogue", f"args may import {parts[1]}.catalogue only, not {module}"
        if here == "args" and parts[1] == "compat":
            assert parts[2] == "keys", f"args may import compat.keys only, not {module}"
        if here == "hex" and parts[1] == "args":
            assert path.name == "objective.py", "only the objective knows of settings"


@pytest.mark.parametrize("name", TORCH_FREE)
def test_torch_free_at_import(name):
    target = SOLO / name
    for path in target.rglob("*.py") if target.is_dir() else [target]:
        heavy = {module.split(".")[0] for module in imports(path, top_level=True)} & HEAVY
        assert not heavy, f"{path} imports {heavy}"


@pytest.mark.parametrize("name", ["losses", "hex", "nn", "eval", "data", "analysis"])
def test_no_lightning_in_the_rooms_that_know_tensors_only(name):
    for path in (SOLO / name).rglob("*.py"):
        assert not any(module.startswith(("lightning", "pytorch_lightning")) for module in imports(path)), path


# Rooms inside `data`, from the ground up: each may import from those before it, never from those after it.
FLOORS = ["labels", "storage", "layouts", "catalogue", "sources", "views", "cache", "batches"]


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.parent == SOLO / "data"], ids=str)
def test_floors_of_data(path):
    allowed = FLOORS[: FLOORS.index(path.parent.name) + 1]
    for module in imports(path):
        below = module.split(".")[2:3] if module.startswith("solo.data.") else []
        assert not below or below[0] in allowed, f"{path} imports {module}"


def test_no_circle():
    """Of modules, imports inside of functions counted too: whoever reads one file needs no other that needs it."""
    names = {".".join(path.relative_to(SOLO).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    graph = {}
    for name, path in names.items():
        found = {module.removeprefix("solo.") for module in imports(path, run_time=True) if module.startswith("solo.")}
        found = {module if module in names else module.rpartition(".")[0] for module in found}
        graph[name] = {other for other in found & set(names) if other != name}
    done, way = set(), []

    def visit(name):
        assert name not in way, f"a circle of imports: {' -> '.join([*way[way.index(name) :], name])}"
        if name not in done:
            way.append(name)
            for other in sorted(graph[name]):
                visit(other)
            done.add(way.pop())

    for name in graph:
        visit(name)


# Names of solo-learn's that begin with an underscore, and which users override or read.
OF_THE_PAST = {"_BACKBONES", "_OPTIMIZERS", "_dequeue_and_enqueue", "_N_CLASSES_PER_DATASET", "_SUPPORTED_DATASETS"}
OF_OTHERS = {"_URL", "_STL10__load_folds", "_MLFLOW_AVAILABLE"}  # torchvision's, Lightning's


def private_names(path: Path) -> set[str]:
    """Names with one underscore that a file takes from modules of ours, or sets in them."""
    tree = ast.parse(path.read_text())
    ours, found = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("solo"):
            ours |= {alias.asname or alias.name for alias in node.names}
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("setattr", "delattr"):
            found |= {str(arg.value).rpartition(".")[2] for arg in node.args[:2] if isinstance(arg, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in {*ours, "solo", "model", "loader"}:
            found.add(node.attr)
    return {name for name in found if name.startswith("_") and not name.startswith("__")} - OF_THE_PAST - OF_OTHERS


def test_tests_use_public_names():
    strangers = {str(path): names for path in sorted(TESTS.rglob("*.py")) if (names := private_names(path))}
    assert not strangers
