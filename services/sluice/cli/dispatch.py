"""Finds the command that was typed: it runs with any extras, and says which one a command lacks."""

import sys
from collections.abc import Sequence

from sluice.cli.errors import FAILED, WRONG_USAGE, CommandError
from sluice.cli.extras import DISTRIBUTION, NEEDS, installed, need, overview
from sluice.signals import end_when_told, end_with_parent, exits_when_told
from sluice.stderr import say

_SERVERS = ("serve", "model-server", "evaluator")
_CHILD = "--end-with-parent"  # before the command: the process is another one's child, which holds its standard input


def dispatch(arguments: Sequence[str]) -> int:
    """Run a command; its exit code. Why it cannot be done is one line on standard error."""
    try:
        return _run(arguments)
    except CommandError as error:
        say(f"sluice: {error}\n")
        return error.code
    except BrokenPipeError:  # nobody reads the answer any more
        sys.stdout = None
        return FAILED


def _run(arguments: Sequence[str]) -> int:
    """Importing the other commands' framework would take a third of the start of `serve`."""
    if arguments and arguments[0] == _CHILD:
        end_with_parent()
        arguments = arguments[1:]
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", arguments)
    if command in _SERVERS:
        end_when_told()
    need(command, *NEEDS.get(command, ()))
    if command == "serve":
        from sluice.cli.serve import serve

        return serve(rest)
    if command == "model-server":
        from sluice.cli.model_server import model_server

        return model_server(rest)
    if command == "evaluator":
        from sluice.cli.evaluator import evaluator

        return evaluator(rest)
    if command == "--version":
        from importlib.metadata import version

        print(f"sluice {version(DISTRIBUTION)}", flush=True)  # noqa: T201 - for who typed the command
        return 0
    if not installed("cli"):
        asked = command in ("--help", "-h")
        print(overview(), file=sys.stdout if asked else sys.stderr, flush=True)
        return 0 if asked else WRONG_USAGE
    return _typed(arguments)


def _typed(arguments: Sequence[str]) -> int:
    """Run one of the commands that typer reads."""
    from typer import TyperException

    from sluice.cli.main import app
    from sluice.cli.usage import told

    with exits_when_told():
        try:
            return app(arguments, prog_name="sluice", standalone_mode=False) or 0
        except TyperException as error:
            if reason := told(error, arguments):
                raise CommandError(reason, WRONG_USAGE) from None
            return WRONG_USAGE  # nothing was typed behind it, for which there is the help
