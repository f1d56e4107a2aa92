"""What the user page and the docstrings of the condition language show is true."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import modelyard.criteria
from modelyard.criteria import parse, to_text

PAGE = (Path(__file__).parents[3] / "docs" / "criteria.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
MODULES = [found.name for found in pkgutil.iter_modules(modelyard.criteria.__path__)]


def test_python_blocks_run_and_print_what_the_page_shows(capsys):
    namespace = {}
    printed = []
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "docs/criteria.md", "exec"), namespace)
            printed.append(capsys.readouterr().out)
    shown = [code for language, code in BLOCKS[1:] if not language]
    assert [output for output in printed if output] == shown


@pytest.mark.parametrize("line", BLOCKS[0][1].splitlines())
def test_the_examples_at_the_head_are_canonical(line):
    assert to_text(parse(line)) == line


TABLE = PAGE[PAGE.index("| comparison") : PAGE.index("**Names**")]
SKIPPED = {"and", "or", "not", "is null", "is not null"}


@pytest.mark.parametrize("example", [found for found in re.findall(r"`([^`]+)`", TABLE) if found not in SKIPPED])
def test_every_example_in_the_table_is_a_condition(example):
    assert parse(to_text(parse(example))) == parse(example)


def test_docstrings():
    results = [doctest.testmod(importlib.import_module(f"modelyard.criteria.{name}")) for name in MODULES]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 15
