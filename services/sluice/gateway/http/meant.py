"""Which path a client meant that asked for one that does not exist; it does not know what is served."""

import re

_MODEL = "(/v1/models/[^/:]+)"
_VERSION = "(?:/(?:versions|labels)/[^/:]+)?"
# A path as it is mistaken, and as it is right.
_MISTAKEN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(mistaken), right)
    for mistaken, right in (
        (r"(/v1/sessions/[^/:]+)/(step|scan|fork|renew)", r"\1:\2"),
        (rf"{_MODEL}/sessions/step", r"\1/sessions:step"),
        (rf"{_MODEL}/sessions/([^/:]+(?::\w+|/\w+)?)", r"/v1/sessions/\2"),
        (rf"{_MODEL}{_VERSION}[:/](step|scan|fork|renew)", r"/v1/sessions/ID:\2"),
        (rf"({_MODEL}{_VERSION})/(predict|classify|regress|recognize|generate)", r"\1:\3"),
        (rf"{_MODEL}{_VERSION}/sessions", r'\1/sessions with "version" or "label" in the body'),
        (r"(/v2/models/[^/:]+(?:/versions/[^/:]+)?):infer", r"\1/infer"),
        (r"/v1/sessions", "/v1/models/NAME/sessions"),
    )
)


def meant(path: str) -> str | None:
    """The right path in place of a mistaken one; None: there is no telling."""
    return next((found.expand(right) for like, right in _MISTAKEN if (found := like.fullmatch(path))), None)
