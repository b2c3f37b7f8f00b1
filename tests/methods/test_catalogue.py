"""The catalogue: a method's name stands in its own file and in its row only, and its row says what its class is."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from solo.methods import METHODS
from solo.methods.catalogue import CATALOGUE, MethodFacts, facts_of, facts_of_class
from solo.methods.momentum import BaseMomentumMethod

SOLO = Path(__file__).parents[2] / "solo"
# The catalogue; the package lightly; losses and variants of ViT that are called as their method; names of the past, and
# of other people;
# the usage text, whose examples are commands.
EXEMPT = (
    "methods/catalogue.py",
    "methods/lightly_losses.py",
    "losses/",
    "backbones/from_timm.py",
    "compat/",
    "errors.py",
    "args/show.py",
)


def texts(path: Path) -> set[str]:
    """The words of a file's texts, without docstrings."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and isinstance(node.body[0], ast.Expr)
    }
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs)
    return {word for node in found if isinstance(node.value, str) for word in re.findall(r"\w+", node.value)}


def test_a_name_stands_in_its_own_file_and_its_row_only() -> None:
    strangers = {}
    for path in sorted(SOLO.rglob("*.py")):
        place = str(path.relative_to(SOLO))
        own = {n for n, facts in CATALOGUE.items() if facts.path.startswith(f"solo.{place[:-3].replace('/', '.')}:")}
        if not place.startswith(EXEMPT) and (named := (texts(path) & set(CATALOGUE)) - own):
            strangers[place] = named
    assert not strangers


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_row_says_what_its_class_is(name: str) -> None:
    facts, method = CATALOGUE[name], METHODS[name]
    assert facts == facts_of(name) == facts_of_class(method)
    assert method.Kwargs is facts.kwargs and issubclass(method, BaseMomentumMethod) == facts.momentum
    assert f"{method.__module__}:{method.__name__}" == facts.path


def test_a_class_of_ones_own_has_its_parents_facts_and_its_own_ones() -> None:
    class Child(METHODS["byol"]):  # type: ignore[misc]
        pass

    class Own(METHODS["base"]):  # type: ignore[misc]
        facts = MethodFacts(hex="blends", most_views=None)

    assert facts_of_class(Child).hex == "blends" and facts_of_class(Child).momentum
    assert facts_of_class(Own).hex == "blends" and facts_of_class(Own).kwargs is None
    assert not facts_of_class(Own).momentum and facts_of("nobody") is None


TABLES = {  # document -> what must be said of the methods whose facts are so
    "docs/large_batches.md": lambda facts: facts.per_image,
    "docs/hierarchical.md": lambda facts: facts.hex == "denominator",
    "README.md": lambda facts: facts.hex in ("replaces", "blends"),
}


@pytest.mark.parametrize("document", TABLES)
def test_documents_name_them_all(document: str) -> None:
    text: Any = (SOLO.parent / document).read_text().lower()
    named = [name for name, facts in CATALOGUE.items() if TABLES[document](facts)]
    assert named and [name for name in named if f"`{name}`" not in text] == []
