"""Decides which files an evaluation may name: those below the data roots and no others, wherever links lead.

A refusal is the same whether or not there is a file outside. It does not know what the files hold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sluice.data import File
from sluice.data.files import SUFFIXES, check_kind, refused
from sluice.missing import no_folder
from sluice.policy.errors import BadRequest

PROTOCOLS = ("file", "s3", "gs")  # that there can be

_LOCAL, _SCHEME = "file", "://"


@dataclass(frozen=True, slots=True)
class Roots:
    """Where data may be named: below `folders`, whose own links are resolved, and `stores`, s3://bucket/folder."""

    folders: tuple[Path, ...] = ()
    stores: tuple[str, ...] = ()
    protocols: tuple[str, ...] = (_LOCAL,)

    def files(self, path: str) -> Sequence[File]:
        """The file of this name, or those of the folder in the order of their names.

        `path` is relative to a root, or an absolute path or a URL below one.

        Raises:
            BadRequest: there is none, or it is not of a kind that is read.
            BackendUnavailable: the store does not answer.
        """
        if not self.folders and not self.stores:
            raise BadRequest(
                "data.path: this evaluator has no data roots, so no data can be named. Upload the file to POST "
                "/v1/evaluations/uploads, or start it with data roots: "
                "`sluice serve --evaluations-data-roots DIR`, or `sluice evaluator --data-roots DIR`"
            )
        if "::" in path or any(each < " " or each == "\x7f" for each in path):
            raise BadRequest(
                f"data.path: expected one path or URL, without '::' and control characters; got {path!a:.200}"
            )
        protocol, scheme, rest = path.partition(_SCHEME)
        if scheme and protocol not in self.protocols:
            expected = " or ".join(f"{each}{_SCHEME}" for each in self.protocols)
            raise BadRequest(f"data.path: expected a path, or a URL that begins with {expected}; got {path!r:.200}")
        found = next(self._candidates(rest if protocol == _LOCAL and scheme else path), ())
        if not found:
            raise BadRequest(
                f"data.path: expected a file that ends in {', '.join(SUFFIXES)}, or a folder of them, below the data "
                f"roots; there is none of the name {path!r:.200}"
            )
        check_kind(path, [file.name for file in found])
        return found

    def _below(self, path: Path) -> Path | None:
        """Where a path leads, if that is in one of the folders."""
        try:
            found = path.resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # there is none, or links lead round in a circle
            return None
        return found if any(found.is_relative_to(folder) for folder in self.folders) else None

    def _local(self, found: Path, path: str) -> Sequence[File]:
        try:
            if not found.is_dir():
                return [File(path, str(found))] if found.is_file() else ()
            names = sorted(each.name for each in found.iterdir() if each.suffix.lower() in SUFFIXES)
            below = [(name, self._below(found / name)) for name in names]
            files = [File(f"{path.rstrip('/')}/{name}", str(file)) for name, file in below if file and file.is_file()]
        except OSError:  # it may not be looked at
            return ()
        return files if len(files) == len(names) else ()

    def _candidates(self, path: str) -> Iterator[Sequence[File]]:
        for folder in self.folders if _SCHEME not in path else ():
            if (below := self._below(folder / path)) is not None:
                yield self._local(below, path)
        for store in self.stores if not path.startswith("/") else ():
            url = path if _SCHEME in path else f"{store}/{path}"
            if f"{url}/".startswith(f"{store}/") and _is_plain(url):
                yield from _in_store(url, path)


def roots_of(names: Sequence[str], protocols: Sequence[str]) -> Roots:
    """The data roots that an operator names: folders, and URLs.

    Raises:
        ValueError: one cannot be used.
    """
    if unknown := sorted({*protocols} - {*PROTOCOLS}):
        raise ValueError(f"--protocols: expected some of {', '.join(PROTOCOLS)}; got {unknown[0]!r}")
    folders, stores = list[Path](), list[str]()
    for name in names:
        protocol, scheme, rest = name.partition(_SCHEME)
        if (protocol if scheme else _LOCAL) not in protocols:
            raise ValueError(f"--data-roots: expected one of the protocols {', '.join(protocols)}; got {name!r}")
        if scheme and protocol != _LOCAL:
            stores.append(_store(protocol, name))
            continue
        folder = Path(rest if scheme else name)
        if not folder.is_dir():
            raise ValueError(f"--data-roots: expected a folder; {no_folder(folder)}")
        folders.append(folder.resolve())
    return Roots(tuple(folders), tuple(stores), tuple(protocols))


def _store(protocol: str, name: str) -> str:
    from fsspec import get_filesystem_class  # noqa: PLC0415 - only URLs need it

    url = name.rstrip("/")
    if "::" in url or not _is_plain(url):
        raise ValueError(f"--data-roots: expected a URL such as {protocol}://bucket/folder; got {name!r}")
    try:
        get_filesystem_class(protocol)
    except ImportError as error:
        raise ValueError(f"--data-roots: {name} cannot be read; {error}") from None
    return url


def _is_plain(url: str) -> bool:
    """Whether a store takes it for what it looks like: no step up, none that is empty."""
    return not {"", ".", ".."} & {*url.partition(_SCHEME)[2].split("/")}


def _in_store(url: str, path: str) -> Iterator[Sequence[File]]:
    from fsspec.core import url_to_fs  # noqa: PLC0415 - only URLs need it

    try:
        system, inner = url_to_fs(url)
        system.invalidate_cache(inner)
        if system.info(inner)["type"] != "directory":
            yield [File(path, url)]
            return
        names = sorted(
            PurePosixPath(each["name"]).name for each in system.ls(inner, detail=True) if each["type"] == "file"
        )
    except FileNotFoundError:
        return
    except Exception as error:
        raise refused(path, error) from None
    kept = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    yield [File(f"{path}/{name}", f"{url}/{name}") for name in kept]
