"""docs/pitfalls.md: every pitfall has a row, and what a row names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \d+ \|", line)
]


@cache
def named(path):
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_all_45_have_a_row():
    assert [int(row[0]) for row in ROWS] == list(range(1, 46))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_a_module_and_a_test_that_are_there(row):
    _, pitfall, guard, module, shown = row
    assert pitfall
    assert guard
    assert (ROOT / "src" / "windtunnel" / module.strip("`")).is_file()
    path, name = shown.strip("`").split("::")
    assert name.startswith("test_")
    assert name in named(path)
