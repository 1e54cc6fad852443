"""The Dockerfile builds what the repository holds, for a user without rights, from what is locked."""

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, text_of

DOCKERFILE = "deploy/docker/Dockerfile"
IMAGES = {"gateway": ("gateway",), "evaluator": ("evaluator",), "export": ("export", "cli")}  # and their extras
EXTRAS = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
_STAGE = re.compile(r"(\S+) AS (\S+)")


@cache
def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, the first of them what it is FROM."""
    found: dict[str, list[tuple[str, str]]] = {"": []}
    lines = [line for line in text_of(DOCKERFILE).splitlines() if line and not line.startswith("#")]
    for line in lines:
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            stage = _STAGE.fullmatch(rest)
            assert stage, line
            found[stage[2]] = [(instruction, stage[1])]
        else:
            found[[*found][-1]].append((instruction, rest))
    return found


def said(stage: str, instruction: str) -> list[str]:
    return [rest for each, rest in stages()[stage] if each == instruction]


def locked(name: str) -> dict[str, set[str]]:
    """The versions of each distribution in a file of requirements; more than one where they differ by Python."""
    found = defaultdict(set)
    for distribution, version in re.findall(r"^([a-z0-9-]+)==(\S+)", text_of(f"requirements/{name}.txt"), re.MULTILINE):
        found[distribution].add(version)
    return found


def reaches_the_builder(path: Path) -> bool:
    """Whether .dockerignore lets a file through: the last line that matches it or a folder above it decides."""
    there = [str(each) for each in [path, *path.parents] if each != Path()]
    ignored = False
    for line in text_of(".dockerignore").splitlines():
        pattern = line.removeprefix("!")
        forms = (pattern, pattern.removeprefix("**/"), f"*/{pattern.removeprefix('**/')}")[: 3 if "**/" in line else 1]
        if not line.startswith("#") and any(fnmatch.fnmatchcase(each, form) for each in there for form in forms):
            ignored = not line.startswith("!")
    return not ignored


def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_what_it_begins_with_has_a_full_version() -> None:
    [base] = said("", "ARG")
    assert re.fullmatch(r"PYTHON=python:3\.\d+\.\d+-slim-[a-z]+", base)
    own = {*stages()} - {""}
    begun = [said(stage, "FROM")[0] for stage in own]
    assert {*begun} - own == {"${PYTHON}"}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_without_rights(image: str) -> None:
    assert said(image, "USER") == ["10001:10001"]
    after = stages()[image].index(("USER", "10001:10001"))
    assert {instruction for instruction, _ in stages()[image][after + 1 :]} <= {"EXPOSE", "ENTRYPOINT", "CMD"}
    made = said("python", "RUN")[-1]
    assert "groupadd --gid 10001" in made
    assert "useradd --uid 10001 --gid 10001" in made


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_sluice_as_process_1(image: str) -> None:
    """A shell between would keep the signal that tells it to end."""
    assert json.loads(said(image, "ENTRYPOINT")[0]) == ["sluice"]
    [command] = json.loads(said(image, "CMD")[0])
    assert command == {"gateway": "serve", "evaluator": "evaluator", "export": "--help"}[image]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_no_tool_that_builds_or_installs(image: str) -> None:
    assert said(image, "FROM") == ["python"]
    assert said(image, "COPY") == [f"--from={image}-environment /opt/sluice /opt/sluice"]
    assert not {"hatchling", "editables", "uv", "pip"} & locked(image).keys()


def test_everything_is_compiled_when_it_is_built() -> None:
    assert "compileall" in said("python", "RUN")[0]
    assert "UV_COMPILE_BYTECODE=1" in said("uv", "ENV")[0]
    assert "PYTHONDONTWRITEBYTECODE=1" in said("python", "ENV")[0]


def test_every_file_that_is_copied_is_there_and_reaches_the_builder() -> None:
    for stage in stages():
        for copied in said(stage, "COPY"):
            *sources, _ = copied.split()
            for source in [] if sources[0].startswith("--from=") else sources:
                assert (ROOT / source).exists(), source
                assert reaches_the_builder(Path(source)), source


def test_nothing_else_reaches_the_builder() -> None:
    for path in ("var/models/temperature/1/saved_model.pb", ".git/config", ".venv/bin/python", "tests/conftest.py",
                 "services/sluice/__pycache__/log.cpython-311.pyc", "docs/README.md", ".env"):  # fmt: skip
        assert not reaches_the_builder(Path(path)), path


def test_what_is_installed_is_locked_with_hashes() -> None:
    installs = [run for stage in stages() for run in said(stage, "RUN") if " install --" in run or "pip install" in run]
    for run in installs:
        if "pip install" in run:
            assert ("--require-hashes -r requirements/" in run) != ("--offline --no-deps /wheel/*.whl" in run), run
    files = {file for run in installs for file in re.findall(r"requirements/(\w+)\.txt", run)}
    assert files == {"uv", "build", *IMAGES}
    script = text_of("requirements/lock.sh")
    assert all(re.search(rf"^image {file} |requirements/{file}\.txt", script, re.MULTILINE) for file in files)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_what_its_extras_need_in_the_versions_that_are_tested(image: str) -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    needed = [*project["dependencies"], *(each for extra in IMAGES[image] for each in EXTRAS[extra])]
    names = {re.split(r"[\[<>=~;]", each)[0] for each in needed}
    assert names <= locked(image).keys()
    tested = locked("dev")
    assert not {name: found for name, found in locked(image).items() if not found <= tested[name]}


def test_the_wheel_is_built_by_what_the_project_names() -> None:
    groups = tomllib.loads(text_of("pyproject.toml"))["dependency-groups"]
    assert {*groups["build"]} <= locked("build").keys()
    assert not {name: found for name, found in locked("build").items() if not found <= locked("dev")[name]}


@pytest.mark.parametrize("image", ["gateway", "evaluator"])
def test_there_is_no_tensorflow_in_the_images_that_serve(image: str) -> None:
    assert not [name for name in locked(image) if name.startswith(("tensorflow", "keras", "nvidia"))]


def test_the_evaluator_can_use_postgresql() -> None:
    assert {"psycopg", "psycopg-binary"} <= locked("evaluator").keys()
