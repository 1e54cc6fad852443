"""The calibrations in a folder: read at the start and again when files change; which one a model version uses.

It knows files; what a calibration says, and whether it is one for a model, is a rule.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import orjson
import structlog

from sluice.gateway.upstream.served import ServedVersion
from sluice.policy.calibration_document import CalibrationError, check_fits, parse_calibration
from sluice.policy.errors import NotCalibrated
from sluice.policy.recognition import Calibration

log = structlog.get_logger()

_BYTES_LIMIT = 256 * 1024 * 1024
_Stamp = tuple[int, int, int]  # what changes when a file does
_Key = tuple[str, int]  # model and version


@dataclass(frozen=True, slots=True)
class CalibrationFile:
    """What came of a file: its calibration is in use, waits until the version is served, or is refused for a reason."""

    file: str
    status: Literal["in use", "waiting", "refused"]
    reason: str = ""
    model: str | None = None
    version: int | None = None


class _Read(NamedTuple):
    """A file as it was read last: its calibration, or what is wrong."""

    stamp: _Stamp
    found: Calibration | str


class Calibrations:
    """Which calibration each model version uses, from the files `MODEL-VERSION.json` of `folder`; None: there are none.

    `served` finds a version that can be called. A file that cannot be used changes nothing: what was in use stays.
    """

    def __init__(self, folder: Path | None, served: Callable[[str, int], ServedVersion | None]) -> None:
        self.folder = folder
        self.trouble = ""  # why the folder cannot be looked at
        self._served = served
        self._read: dict[str, _Read] = {}
        self._in_use: dict[_Key, Calibration] = {}
        self._files: dict[str, CalibrationFile] = {}
        self._reloading = asyncio.Lock()

    def of(self, served: ServedVersion) -> Calibration:
        """The calibration of a model version that has `recognition` in its contract.

        Raises:
            NotCalibrated: there is none; says how to make one.
        """
        key = (served.model, served.version)
        found = self._in_use.get(key) or self._taken(key)
        if found is None:
            raise NotCalibrated(self._how_to(served))
        return found

    def files(self, model: str | None = None) -> list[CalibrationFile]:
        """What came of each file, by name; of one model those that are, or seem to be, for it."""
        found = (file for _, file in sorted(self._files.items()))
        return [file for file in found if model in (None, file.model) or file.file.startswith(f"{model}-")]

    async def watch(self, poll_s: float) -> None:
        """Look at the folder every `poll_s` seconds, until cancelled."""
        while self.folder is not None:
            await asyncio.sleep(poll_s)
            try:
                await self.reload()
            except Exception:  # whoever watches must go on watching
                log.exception("the calibrations cannot be looked at")

    async def reload(self) -> None:
        """Read the files that have changed, and take what can be used."""
        if self.folder is None:
            return
        async with self._reloading:
            read, trouble = await asyncio.to_thread(_look, self.folder, self._read)
            if trouble and trouble != self.trouble:
                log.warning("calibrations cannot be looked at", folder=str(self.folder), reason=trouble)
            self.trouble = trouble
            if not trouble:
                self._take(read)

    def forget(self, model: str, version: int) -> None:
        """A version has gone: one that comes under its number may have another contract."""
        self._in_use.pop((model, version), None)

    def _take(self, read: dict[str, _Read]) -> None:
        gone, self._read = self._read.keys() - read.keys(), read
        for file in sorted(gone):
            self._drop(file)
        for file, each in sorted(read.items()):
            self._note(self._tried(file, each.found))

    def _taken(self, key: _Key) -> Calibration | None:
        """As a version may be served before the folder is looked at again."""
        file = _name(*key)
        if file in self._read:
            self._note(self._tried(file, self._read[file].found))
        return self._in_use.get(key)

    def _drop(self, file: str) -> None:
        self._files.pop(file, None)
        for key in [key for key in self._in_use if _name(*key) == file]:
            del self._in_use[key]
        log.warning("calibration gone", file=file)

    def _tried(self, file: str, found: Calibration | str) -> CalibrationFile:
        """What comes of a file; a calibration that can be used is in use from now on."""
        if isinstance(found, str):
            return CalibrationFile(file, "refused", found)
        about = found.model, found.version
        if file != _name(*about):
            reason = f"it is for model {found.model!r} version {found.version}; rename it to {_name(*about)}"
            return CalibrationFile(file, "refused", reason, *about)
        served = self._served(*about)
        if served is None:
            return CalibrationFile(file, "waiting", f"version {found.version} of this model is not served", *about)
        if reason := _misfit(served, found):
            return CalibrationFile(file, "refused", reason, *about)
        self._in_use[about] = found
        return CalibrationFile(file, "in use", "", *about)

    def _note(self, file: CalibrationFile) -> None:
        before, self._files[file.file] = self._files.get(file.file), file
        if file == before:
            return
        if file.status == "refused":
            log.warning("calibration refused", file=file.file, reason=file.reason)
        else:
            log.info("calibration", status=file.status, file=file.file, model=file.model, version=file.version)

    def _how_to(self, served: ServedVersion) -> str:
        model, version = served.model, served.version
        known = self._files.get(_name(model, version))
        if known is not None:
            return f"The calibration of model {model!r} version {version} cannot be used: {known.reason}."
        others = sorted(other for name, other in self._in_use if name == model)
        theirs = f" One of version {', '.join(map(str, others))} says nothing about another." if others else ""
        first = "" if self.folder else " Start the gateway with --calibrations DIR."
        return (
            f"Model {model!r} version {version} is not calibrated.{theirs}{first} Send held-out known rows with "
            f"`sluice calibrate {model} --known DATA --calibrations DIR`, which writes DIR/{_name(model, version)}."
        )


def _misfit(served: ServedVersion, calibration: Calibration) -> str:
    """Why a calibration is none for a version; empty if it is."""
    recognition = served.contract.recognition if served.contract else None
    try:
        check_fits(calibration, served.model, served.version, recognition)
    except CalibrationError as error:
        return str(error)
    return ""


def _name(model: str, version: int) -> str:
    return f"{model}-{version}.json"


def _look(folder: Path, known: Mapping[str, _Read]) -> tuple[dict[str, _Read], str]:
    """The calibrations of a folder, those that have not changed as they are `known`; or why it cannot be looked at."""
    try:
        return {file: _seen(path, known.get(file)) for file, path in _listed(folder)}, ""
    except OSError as error:
        return {}, error.strerror or type(error).__name__


def _listed(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.iterdir():
        if path.suffix == ".json" and not path.name.startswith("."):
            yield path.name, path


def _seen(path: Path, known: _Read | None) -> _Read:
    try:
        about = path.stat()
        stamp = about.st_mtime_ns, about.st_size, about.st_ino
        if known is not None and known.stamp == stamp:
            return known
        return _Read(stamp, _parsed(path, about))
    except OSError as error:
        return _Read((0, 0, 0), f"it cannot be read: {error.strerror}")


def _parsed(path: Path, about: os.stat_result) -> Calibration | str:
    if not stat.S_ISREG(about.st_mode) or about.st_size > _BYTES_LIMIT:
        return f"expected a file of up to {_BYTES_LIMIT} bytes"
    try:
        return parse_calibration(orjson.loads(path.read_bytes()))
    except orjson.JSONDecodeError as error:
        return f"expected JSON: {error}"
    except CalibrationError as error:
        return str(error)
