"""Every setting, error code, metric, command and make target is documented, and none is that does not exist."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml

from sluice.cli.main import app
from sluice.evaluator.settings import Settings as EvaluatorSettings
from sluice.evaluator.settings import load as load_evaluator
from sluice.gateway.settings import Settings, load
from sluice.policy import errors
from tests.docs.pages import ROOT, blocks, pages, shell_lines, text_of
from tests.end_to_end.serving import Gateway

TARGETS = set(re.findall(r"^([a-z][a-z-]*):.*##", text_of("Makefile"), re.MULTILINE))


@pytest.fixture
def pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands on the pages are tried: a folder with `var`, and no settings in the environment."""
    for name in ("models", "calibrations", "demo/calibrations"):
        (tmp_path / "var" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SLUICE_{name.upper()}", raising=False)
    return tmp_path


def first_column(page: str) -> list[str]:
    """The names in backquotes that begin a table's rows, row by row."""
    return re.findall(r"^\| `([^`]+)` \|", text_of(page), re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "kind", "prefix"),
    [("docs/settings.md", Settings, "SLUICE_"), ("docs/evaluator.md", EvaluatorSettings, "SLUICE_EVALUATOR_")],
    ids=["gateway", "evaluator"],
)
def test_every_setting_is_documented_with_its_flag_and_its_variable(page: str, kind: Any, prefix: str) -> None:
    assert [name for name in first_column(page) if " " not in name] == list(kind.model_fields)
    for name in kind.model_fields:
        assert f"| `--{name.replace('_', '-')}` | `{prefix}{name.upper()}` |" in text_of(page)


def test_the_settings_file_on_the_page_can_be_used(pasted: Path) -> None:
    (shown,) = (block.text for block in blocks("docs/settings.md") if block.language == "yaml")
    (pasted / "sluice.yaml").write_text(shown)
    settings = load(["--config", "sluice.yaml"])
    given = yaml.safe_load(shown)
    assert {name: getattr(settings, name) for name in given} == given | {
        "models": Path(given["models"]),
        "allowed_batch_sizes": tuple(given["allowed_batch_sizes"]),
    }


def test_every_error_code_is_documented_once() -> None:
    codes, details = sorted({error.code for error in errors.error_classes()}), detail_keys()
    assert sorted(name for name in first_column("docs/errors.md") if name not in details) == codes


def test_every_detail_of_an_error_is_documented() -> None:
    assert detail_keys() <= set(first_column("docs/errors.md"))


def detail_keys() -> set[str]:
    """The keyword arguments that errors are made with anywhere in the services."""
    names = {error.__name__ for error in errors.error_classes()}
    calls = [
        node
        for path in (ROOT / "services").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]
    return {keyword.arg for call in calls for keyword in call.keywords if keyword.arg}


def test_the_metrics_on_the_page_are_those_of_a_running_gateway(gateway: Gateway) -> None:
    running = re.findall(r"^# HELP (\w+)", gateway.call("GET", "/metrics").body.decode(), re.MULTILINE)
    documented = [name for name in first_column("docs/metrics.md") if name.startswith(("sluice_", "process_"))]
    assert sorted(documented) == sorted(running)


def test_no_page_names_a_metric_that_does_not_exist() -> None:
    known = set(first_column("docs/metrics.md"))
    known |= {f"{name}_bucket" for name in known}
    named = {
        (str(page), name)
        for page in pages()
        for name in re.findall(r"\bsluice_(?!models\b|serving\b)[a-z_]+\b(?!\.)", text_of(page))
    }
    assert not {(page, name) for page, name in named if name not in known}


def test_every_make_target_is_documented_and_every_documented_one_exists() -> None:
    assert set(re.findall(r"^\| `make ([a-z-]+)` \|", text_of("CONTRIBUTING.md"), re.MULTILINE)) == TARGETS
    named = {name for page in pages() for name in re.findall(r"`make ([a-z-]+)`", text_of(page))}
    named |= {line.split()[1] for _, line in shell_lines() if line.startswith("make ")}
    assert named <= TARGETS


@pytest.mark.parametrize(
    "line",
    sorted(
        {re.sub(r"^\.venv/bin/", "", line) for _, line in shell_lines() if re.match(r"(\.venv/bin/)?sluice ", line)}
    ),
)
def test_a_command_on_a_page_has_its_flags(line: str, pasted: Path) -> None:
    args = shlex.split(line, comments=True)[1:]
    if args[0] == "serve":
        load(args[1:])
    elif args[0] == "evaluator":
        load_evaluator(args[1:])
    elif args[0] != "model-server":
        parsed(args)


def parsed(args: list[str]) -> None:
    """Parse a command line as `sluice` does, without running it."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, args = command.commands[args[0]], args[1:]
    with click.Context(command) as context:
        command.parse_args(context, list(args))


def test_every_command_is_named_on_the_page_about_the_command_line() -> None:
    root: Any = typer.main.get_command(app)
    names = [f"models {name}" for name in root.commands["models"].commands]
    names += [name for name in root.commands if name != "models"]
    assert not [name for name in names if f"`{name}`" not in text_of("services/sluice/cli/README.md")]


def test_folders_of_tests_on_the_pages_exist() -> None:
    named = {
        (str(page), path) for page in pages() for line in re.findall(r"pytest ([^`\n]+)", text_of(page))
        for path in re.findall(r"tests/\w+(?:/\w+)*(?:\.py)?", line)
    }  # fmt: skip
    assert not {(page, path) for page, path in named if not (ROOT / path).exists()}
