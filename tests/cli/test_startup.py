"""What is light stays light, and every verb explains itself."""

import json
import subprocess
import sys

import pytest

VERBS = (
    "recipes",
    "show",
    "train",
    "compare",
    "report",
    "generate",
    "serve",
    "tokenizer train",
    "tokenizer show",
    "bench train",
    "bench decode",
)
HEAVY = ("torch", "numpy", "scipy", "jinja2", "plotly", "transformers")
PROBE = """
import json, sys
sys.argv = ["windtunnel", *{arguments!r}]
try:
    from windtunnel.cli import main
    main()
except SystemExit as end:
    print(json.dumps([end.code, [name for name in {heavy!r} if name in sys.modules]]))
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["recipes"], ["recipes", "--json"], ["--version"], ["train", "--help"], ["generate", "--help"]],
)
def test_light_verbs_import_nothing_heavy(arguments: list[str]) -> None:
    code = PROBE.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, windtunnel; sys.exit(any(name in sys.modules for name in {(*HEAVY, 'typer', 'rich')!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(command, verb: str) -> None:
    answer = command(*verb.split(), "--help")
    assert answer.code == 0
    assert "Examples:" in answer.out
    assert f"windtunnel {verb}" in " ".join(answer.out.split())
    assert "--json" in answer.out


def test_help_lists_every_verb(command) -> None:
    out = command("--help").out
    assert all(verb.split()[0] in out for verb in VERBS)
    assert command().out.strip() == out.strip()
    assert command().code == 0


def test_the_shell_can_complete(command) -> None:
    out = command("--help").out
    assert "--install-completion" in out
    assert "--show-completion" in out


def test_version(command) -> None:
    from windtunnel import __version__

    assert command("--version").out == f"windtunnel {__version__}\n"


def test_the_program_runs_as_a_module_too(program) -> None:
    process = program("recipes", "--json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert [entry["name"] for entry in json.loads(out)["recipes"]][:2] == ["gpt3", "llama"]
