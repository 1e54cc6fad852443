"""What to say of a folder that is named and is not there: where it was looked for, and which one may be meant."""

from difflib import get_close_matches
from pathlib import Path


def no_folder(path: Path) -> str:
    """Why something that is no folder cannot be used as one."""
    if path.exists():
        return f"{path} is a file"
    where = "" if path.is_absolute() else f" in {Path.cwd()}"
    close = _close(path)
    return f"there is no folder {path}{where}" + (f"; did you mean {close}?" if close else "")


def _close(path: Path) -> Path | None:
    """The folder whose path differs least, each part by itself."""
    found = Path(path.anchor)
    for part in path.relative_to(found).parts:
        if not (found / part).is_dir():
            try:
                beside = [each.name for each in found.iterdir() if each.is_dir()]
            except OSError:
                return None
            part = next(iter(get_close_matches(part, beside, 1)), "")  # noqa: PLW2901 - the one that is meant
            if not part:
                return None
        found /= part
    return found
