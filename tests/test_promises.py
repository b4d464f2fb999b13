"""docs/reliability.md names, for each promise, a test that is really there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.owner import PROJECT

PAGE = (PROJECT / "docs" / "reliability.md").read_text("utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
PROMISES = [line for line in PAGE.splitlines() if line.startswith("| ") and "held by" not in line]


def test_every_promise_names_a_test():
    assert len(PROMISES) == len(NAMED) > 50


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_test_that_is_named_exists(file: str):
    tree = ast.parse((PROJECT / file).read_text("utf-8"))
    there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert {test for named, test in NAMED if named == file} <= there
