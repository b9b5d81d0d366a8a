"""Commands as they stand in the README and on other pages: a test runs each verb's help and finds its options there."""

from collections.abc import Sequence

from typer.testing import CliRunner

from windtunnel.cli.app import app

ROOMS = ("tokenizer", "bench")  # verbs of two words


def check_options(words: Sequence[str]) -> None:
    """Fails where a verb or an option of a command is not there. words: of the command, `windtunnel` left out."""
    depth = 2 if words[0] in ROOMS else 1
    result = CliRunner().invoke(app, [*words[:depth], "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    for option in (word for word in words if word.startswith("--")):
        assert option in result.output
