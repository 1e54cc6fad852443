"""The command `sluice evaluator`: evaluations over HTTP, without the other commands' framework."""

from collections.abc import Sequence

from sluice.cli.errors import WRONG_USAGE, CommandError
from sluice.log import configure


def evaluator(arguments: Sequence[str]) -> int:
    """Serve until told to stop; the exit code.

    Raises:
        CommandError: a setting, the address or the database cannot be used.
    """
    from pydantic import ValidationError

    from sluice.evaluator.settings import PREFIX, SettingsError, load
    from sluice.wrong_settings import Given, told

    try:
        settings = load(arguments)
    except SettingsError as error:
        raise CommandError(str(error), WRONG_USAGE) from None
    except ValidationError as error:
        raise CommandError(told(error, Given(arguments, PREFIX)), WRONG_USAGE) from None
    configure(settings.log_format)
    from sluice.evaluator.jobs.database import CannotUse
    from sluice.evaluator.parts import parts_of
    from sluice.evaluator.server import serve
    from sluice.listener import CannotListen

    try:
        return serve(settings, parts_of(settings))
    except SettingsError as error:
        raise CommandError(str(error), WRONG_USAGE) from None
    except (CannotListen, CannotUse) as error:
        raise CommandError(str(error)) from None
