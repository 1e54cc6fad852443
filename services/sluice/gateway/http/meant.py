"""Which path a client meant that asked for one that does not exist; it does not know what is served."""

import re
from difflib import get_close_matches

from sluice.gateway.core.sessions import ID_IN_WORDS, SESSION_ID

_MODEL = "(/v1/models/[^/:]+)"
_VERSION = "(?:/(?:versions|labels)/[^/:]+)?"
_SESSION = "/v1/sessions/[^/:]+"
# A path as it is mistaken, and as it is right.
_MISTAKEN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(mistaken), right)
    for mistaken, right in (
        (rf"{_MODEL}/sessions/step", r"\1/sessions:step"),
        (rf"{_MODEL}/sessions/([^/:]+(?::\w+|/\w+)?)", r"/v1/sessions/\2"),
        (rf"{_MODEL}{_VERSION}[:/](step|scan|fork|renew)", r"/v1/sessions/ID:\2"),
        (rf"{_MODEL}/versions/([^/:]+)/(contract|buckets|calibration)", r"\1/\3?version=\2"),
        (rf"{_MODEL}{_VERSION}/sessions", r'\1/sessions with "version" or "label" in the body'),
        (r"/v1/sessions", "/v1/models/NAME/sessions"),
    )
)
_ID_AND_CALL = re.compile(r"/v1/sessions/(.+?)(?::\w+|/\w+)?", re.DOTALL)
_CALLS = (":predict", ":classify", ":regress", ":recognize", ":generate", "/metadata")
_VIEWS = ("/sessions", "/contract", "/buckets", "/calibration")
# How a path begins, and how it may end.
_ENDS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(rf"({begins})[:/](\w+)"), ends)
    for begins, ends in (
        (_SESSION, (":step", ":scan", ":fork", ":renew", "/state", "/stream")),
        (f"/v1/models/[^/:]+{_VERSION}", (*_CALLS, *_VIEWS)),
        ("/v1/models/[^/:]+/sessions", (":step",)),
        ("/v2/models/[^/:]+(?:/versions/[^/:]+)?", ("/infer", "/ready")),
    )
)
ON_MODELS = (
    f"a model has {', '.join(_CALLS)}, each also behind /versions/NUMBER or /labels/LABEL, and {', '.join(_VIEWS)}."
)


def meant(path: str) -> str | None:
    """What to do instead of asking for a mistaken path, as the end of a sentence; None: there is no telling."""
    for like, right in _MISTAKEN:
        if found := like.fullmatch(path):
            return f"it is {found.expand(right)}."
    for like, ends in _ENDS:
        if (found := like.fullmatch(path)) and (close := _closest(found[2], ends)):
            right, sure = found[1] + close, found[2] == close[1:]
            return None if right == path else f"it is {right}." if sure else f"did you mean {right}?"
    return None


def wrong_id(path: str) -> str | None:
    """What is wrong with the id of a session in a path; None: nothing is, or there is none."""
    named = _ID_AND_CALL.fullmatch(path)
    if named is None or re.fullmatch(SESSION_ID, named[1]):
        return None
    return f"A session's id has {ID_IN_WORDS}; {named[1]!r:.200} came."


def _closest(word: str, ends: tuple[str, ...]) -> str | None:
    words = {end[1:]: end for end in ends}
    return next((words[each] for each in get_close_matches(word.lower(), words, 1)), None)
