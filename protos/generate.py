"""Generates the protobuf classes in services/sluice/wire; with --check, only says whether they are up to date."""

import filecmp
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).parent
TARGET = PROTOS.parent / "services" / "wire"


def generate(out: Path) -> list[Path]:
    """Write the classes and their types below `out`; the files written, relative to it."""
    sources = [str(path) for path in sorted(PROTOS.rglob("*.proto"))]
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}"]
    command = [*compiler, f"--python_out={out}", f"--mypy_out=quiet:{out}", *sources]
    subprocess.run(command, check=True)  # noqa: S603 - our own compiler on our own files
    made = sorted(path for path in (out / "sluice").rglob("*_pb2.py*") if "__pycache__" not in path.parts)
    for path in made:
        _import_from_here(path)
    return [path.relative_to(out) for path in made]


def _import_from_here(path: Path) -> None:
    """The compiler takes the root of the .proto files for that of the Python packages."""
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"^(from|import) sluice\.", r"\1 sluice.wire.messages.", text, flags=re.MULTILINE))


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
