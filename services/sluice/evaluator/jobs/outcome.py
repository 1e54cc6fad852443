"""What becomes of an evaluation whose engine has ended with an error, and why, in a sentence.

What can be mended elsewhere pauses it: the gateway, the disk, a model that goes away. What would be refused again fails
it, and so does a model that was never there.
"""

import errno

import structlog

from sluice.evaluator.jobs.database import UNREACHABLE, reason_of
from sluice.evaluator.jobs.life_cycle import Event
from sluice.policy.errors import BadRequest, NotFound, PermissionDenied, SluiceError, TooLarge

log = structlog.get_logger()

_REFUSED = (BadRequest, PermissionDenied, TooLarge)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_RESUME = "Resume it when that is mended."


def outcome_of(error: Exception, id: str, *, begun: bool) -> tuple[Event, str]:
    """What happens to evaluation `id`, of which some rows are done if it has `begun`; and the reason."""
    if isinstance(error, SluiceError):
        refused = isinstance(error, _REFUSED) or (isinstance(error, NotFound) and not begun)
        return Event.FAIL if refused else Event.PAUSE, error.message
    if isinstance(error, UNREACHABLE):
        return Event.PAUSE, f"The database does not take or give values: {reason_of(error)}. {_RESUME}"
    if isinstance(error, OSError) and error.errno in _FULL:
        return Event.PAUSE, f"The disk is full: {reason_of(error)}. Make room, and resume it."
    if isinstance(error, OSError):
        return Event.PAUSE, f"A file or a connection failed: {reason_of(error)}. {_RESUME}"
    log.error("evaluation failed", evaluation=id, exc_info=error)
    return Event.FAIL, f"This is a bug in the evaluator, which its log tells more of: {type(error).__name__}: {error}"
