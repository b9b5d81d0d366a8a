"""What the README shows works as it stands."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.commands import check_options
from windtunnel import recipes
from windtunnel.cli.app import app

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(match[1].split("  ")[0].strip())
    for match in re.finditer(r"^    (?:\.venv/bin/)?windtunnel (.*)$", TEXT, re.MULTILINE)
]


def test_the_python_example_runs():
    block = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None
    exec(compile(block[1], str(README), "exec"), {})


def test_the_readme_shows_every_verb():
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {words[0] for words in COMMANDS} == set(verbs)


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] in ("recipes", "show")], ids=" ".join)
def test_commands_that_only_look_run(words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_have_the_options_that_are_shown(words):
    check_options(words)


def test_the_table_of_recipes_is_complete():
    for name in recipes.names():
        assert f"| `{name}` |" in TEXT


def test_every_recipe_is_on_the_page_of_proofs():
    page = (README.parent / "docs" / "proof.md").read_text()
    for name in recipes.names():
        assert f"| `{name}` |" in page, f"{name}: write the page with `make proof`"
