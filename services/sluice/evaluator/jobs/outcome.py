"""What becomes of an evaluation whose engine has ended with an error, and why, in a sentence.

What can be mended elsewhere pauses it: the gateway, the model, the disk. What would be refused again fails it.
"""

import errno

import structlog

from sluice.evaluator.jobs.database import UNREACHABLE, reason_of
from sluice.evaluator.jobs.life_cycle import Event
from sluice.policy.errors import BadRequest, PermissionDenied, SluiceError, TooLarge

log = structlog.get_logger()

_REFUSED = (BadRequest, PermissionDenied, TooLarge)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_RESUME = "Resume it when that is mended."


def outcome_of(error: Exception, id: str) -> tuple[Event, str]:
    """What happens to evaluation `id`, and the reason."""
    if isinstance(error, SluiceError):
        return Event.FAIL if isinstance(error, _REFUSED) else Event.PAUSE, error.message
    if isinstance(error, UNREACHABLE):
        return Event.PAUSE, f"The database does not take or give values: {reason_of(error)}. {_RESUME}"
    if isinstance(error, OSError) and error.errno in _FULL:
        return Event.PAUSE, f"The disk is full: {reason_of(error)}. Make room, and resume it."
    if isinstance(error, OSError):
        return Event.PAUSE, f"A file or a connection failed: {reason_of(error)}. {_RESUME}"
    log.error("evaluation failed", evaluation=id, exc_info=error)
    return Event.FAIL, f"This is a bug in the evaluator, which its log tells more of: {type(error).__name__}: {error}"
