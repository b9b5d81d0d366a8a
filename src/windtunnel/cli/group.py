"""How a verb ends: what goes wrong becomes one line on stderr and an exit code, never a traceback.

0 done, 1 work failed midway, 2 bad input found before work began, 130 and 143 stopped by Ctrl-C and SIGTERM.
WINDTUNNEL_DEBUG=1 lets every error through with its traceback.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from windtunnel.cli.screen import write_json
from windtunnel.errors import InputError, WorkError
from windtunnel.spec import nearest

_USAGE = typer.BadParameter.__bases__[0]  # UsageError, which typer has under different names in different versions
_INTERRUPTED = 130


class Group(TyperGroup):
    """Verbs by name. The `main` of the top one always exits."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that was typed; the nearest ones are offered for one that is not there."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise InputError(f"{ctx.command_path} has no verb {args[0]!r}{nearest(args[0], self.commands)}")
        name, verb, rest = super().resolve_command(ctx, args)
        if verb is not None:
            _settled(verb.get_params(ctx))
        return name, verb, rest

    def get_params(self, ctx: Any) -> Any:
        """The options of the program itself."""
        return _settled(super().get_params(ctx))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a verb and exit with its code."""
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(arguments, "windtunnel", complete_var, False, windows_expand_args, **extra)
        except Exception as error:
            if os.environ.get("WINDTUNNEL_DEBUG") == "1":
                raise
            code = 0 if type(error).__name__ == "NoArgsIsHelpError" else _fail(error, arguments)
        sys.exit(code if isinstance(code, int) else 0)


def _settled(parameters: Any) -> Any:
    """Flags that typer leaves at None become False: turning None into a bool would import pydantic, 0.15 s."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.default is None:
            parameter.default = False
    return parameters


def _fail(error: Exception, arguments: list[str]) -> int:
    """Say what went wrong, as text on stderr and, with --json, as an object on stdout; returns the exit code."""
    code, message = _judge(error, arguments)
    if _said_by_another(error):
        return code
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr)
    if "--json" in arguments:
        write_json({"error": line, "exit_code": code})
    return code


def _said_by_another(error: Exception) -> bool:
    """Whether the first of several processes says the same: bad input and a stop are common to all."""
    common = isinstance(error, InputError | _USAGE) or hasattr(error, "signal")
    return common and os.environ.get("RANK", "0") != "0"


def _judge(error: Exception, arguments: list[str]) -> tuple[int, str]:
    if isinstance(error, InputError):
        return 2, str(error)
    if isinstance(error, _USAGE):
        return 2, _usage(error)
    if isinstance(error, typer.Abort):
        return _INTERRUPTED, "interrupted"
    if isinstance(error, WorkError):
        number = getattr(error, "signal", None)
        return (128 + number if number else 1), f"{error}{_way_on(error, arguments)}"
    if isinstance(error, MemoryError):
        return 1, "out of memory: choose a smaller model, batch or context, or --checkpoint-activations"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return 1, f"{where}{error.strerror or error}"
    return 1, f"{type(error).__name__}: {error} (a fault of windtunnel's; WINDTUNNEL_DEBUG=1 shows where)"


def _way_on(error: WorkError, arguments: list[str]) -> str:
    """The command that goes on with an interrupted run."""
    if not hasattr(error, "signal"):
        return ""
    again = arguments if "--resume" in arguments or arguments[0] != "train" else [*arguments, "--resume"]
    return f": windtunnel {shlex.join(again)}"


def _usage(error: Any) -> str:
    """A usage error in one line that names what was typed and what is allowed."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    option = getattr(error, "option_name", None)
    if option is not None and type(error).__name__ == "NoSuchOption" and context is not None:
        known = [name for each in context.command.get_params(context) for name in each.opts if name.startswith("--")]
        return f"{context.command_path} has no option {option}{nearest(option, known)}"
    if parameter is None:
        return f"{_lower(error.format_message())}{_where_to_look(context)}"
    name = parameter.opts[0] if parameter.param_type_name == "option" else (parameter.metavar or parameter.name.upper())
    if type(error).__name__ == "MissingParameter":
        return f"{name} is missing{_where_to_look(context)}"
    return f"{name}: {_lower(error.message)}"


def _where_to_look(context: Any) -> str:
    return f"; see {context.command_path} --help" if context is not None else ""


def _lower(message: str) -> str:
    text = message.rstrip(".")
    return text[:1].lower() + text[1:]
