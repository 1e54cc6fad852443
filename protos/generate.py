"""Generates the protobuf classes in sluice.wire.messages; with --check, only says whether they are up to date."""

import filecmp
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).parent
TARGET = PROTOS.parent / "services" / "sluice" / "wire" / "messages"


def generate(out: Path) -> list[Path]:
    """Write the classes and their types to `out`; the files written, relative to it."""
    sources = [str(path) for path in sorted(PROTOS.rglob("*.proto"))]
    with tempfile.TemporaryDirectory() as folder:
        compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}"]
        command = [*compiler, f"--python_out={folder}", f"--mypy_out=quiet:{folder}", *sources]
        subprocess.run(command, check=True)  # noqa: S603 - our own compiler on our own files
        made = sorted((Path(folder) / "sluice").rglob("*_pb2.py*"))
        return [_placed(path, path.relative_to(Path(folder) / "sluice"), out) for path in made]


def _placed(made: Path, name: Path, out: Path) -> Path:
    """Write a file to its place, with its imports: the compiler takes the .proto files' root for the packages'."""
    text = re.sub(
        r"^(from|import) sluice\.", r"\1 sluice.wire.messages.", made.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text(text, encoding="utf-8")
    return name


def stale() -> list[Path]:
    """Committed files that differ from what the .proto files say."""
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder))
        return [path for path in made if not _same(Path(folder) / path, TARGET / path)]


def _same(one: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(one, other, shallow=False)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        generate(TARGET)
    elif outdated := stale():
        sys.exit(f"Not what the .proto files say: {', '.join(map(str, outdated))}. Run `make protos`.")
