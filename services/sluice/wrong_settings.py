"""What is wrong with a process's settings, in a line: in our own words where they say what came, or in pydantic's."""

from pydantic import ValidationError


def told(error: ValidationError) -> str:
    """Of each setting what is wrong with it; of settings that do not go together, why."""
    found = []
    for each in error.errors():
        where = "".join(f"{part}." for part in each["loc"])[:-1]
        ours = each["type"] == "value_error"
        reason = str(each["ctx"]["error"]) if ours else f"{each['msg']} (got {each['input']!r:.80})"
        found.append(f"{where}: {reason}" if where else reason)
    return "; ".join(found)
